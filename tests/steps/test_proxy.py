"""Steps and buildkitd in a network whose only way out is a proxy: nobody else can resolve these names."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, Resolved
from multiarchbuild.oci.index import find_image
from multiarchbuild.plan.proxy import ProxyPolicy
from tests.cluster import build
from tests.cluster.layout import cache_directory
from tests.steps.conftest import PASSWORD, USER, Pod, Services, docker_config, start_buildkitd
from tests.steps.servers import Proxy
from tests.support.ports import free_port

REGISTRY, SECURE = "registry.test:5000", "secure.test"


@dataclass(frozen=True)
class Inside:
    """The services as they are seen from behind the proxy."""

    services: Services
    outside: Services
    proxy: Proxy


@pytest.fixture(scope="module")
def inside(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "page").write_text("from outside")
    program = str(build.ensure(cache_directory({})).programs["buildkitd"])
    with ExitStack() as stack:
        pages = stack.enter_context(
            ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
        )
        threading.Thread(target=pages.serve_forever, args=(0.01,), daemon=True).start()
        stack.callback(pages.shutdown)
        proxy = Proxy(
            {
                REGISTRY: services.registry,
                f"{SECURE}:443": services.secure.replace("localhost", "127.0.0.1"),
                "git.test:80": f"127.0.0.1:{services.git.port}",
                "pages.test:80": f"127.0.0.1:{pages.server_port}",
            }
        )
        stack.enter_context(proxy.serving())
        behind = replace(
            services,
            others=({"host": REGISTRY, "plainHttp": True},),
            proxy={"http": proxy.url, "https": proxy.url, "noProxy": ["10.0.0.0/8"]},
            socket=folder / "buildkitd.sock",
        )
        with pytest.MonkeyPatch.context() as patch:
            set_environment(patch, behind)
            start_buildkitd(stack, program, folder, behind)
        yield Inside(behind, services, proxy)


def set_environment(patch: pytest.MonkeyPatch, services: Services) -> None:
    """Set the variables that containers of a pod have."""
    for name, value in ProxyPolicy.model_validate(services.proxy).environment.items():
        patch.setenv(name, value)


@pytest.fixture
def pod(inside: Inside, pod: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    set_environment(monkeypatch, inside.services)
    inside.proxy.asked.clear()

    def make(*arguments: Any, **parts: Any) -> Pod:
        made: Pod = pod(*arguments, **parts)
        made.services = inside.services
        return made

    return make


DOCKERFILE = f"FROM {REGISTRY}/library/busybox:1.36\nRUN wget -q -O /page http://pages.test/page && cat /page\n"


def test_everything_of_a_run_goes_through_the_proxy(
    pod: Any, inside: Inside, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = inside.services.git.commit("proxied", {"Dockerfile": DOCKERFILE})
    app = pod(source={"git": {"url": "http://git.test/proxied", "ref": "main"}})
    app.spec["output"] = {"image": f"{REGISTRY}/{app.image}"}
    resolved = app.run("resolve")
    assert isinstance(resolved, Resolved), resolved
    assert resolved.source.commit == commit
    cache = f"{REGISTRY}/{app.image}:cache-a"
    built = app.built(f"--cache-to={cache}", f"--cache-from={cache}", source=resolved.source)
    assert "from outside" in capfd.readouterr().out
    result = app.run("publish", "--tag=latest", built={"linux/amd64": built.digest})
    assert isinstance(result, Published), result
    assert {entry.partition(" ")[2] for entry in inside.proxy.asked} == {REGISTRY, "git.test:80", "pages.test:80"}
    client = inside.outside.client(app.image)
    assert client.resolve("latest").digest == result.digest
    assert client.resolve("cache-a").raw

    image = find_image(client.get(result.digest), Platform.parse("linux/amd64"))
    config = client.small_blob(client.get(image.descriptor["digest"]).content["config"]["digest"])
    assert "proxy" not in config.decode().lower()
    assert "/bin/sh" in config.decode()


def test_another_proxy_builds_nothing_anew(pod: Any, inside: Inside) -> None:
    app = pod(source={"inline": {"files": {"Dockerfile": DOCKERFILE + "RUN date > /date\n"}}})
    app.built()
    app.services = replace(inside.services, proxy={**inside.services.proxy, "noProxy": [".example.com"]})
    again = app.built()
    assert again.cache.hits == again.cache.total == 2


def test_tls_goes_through_it_unopened(pod: Any, inside: Inside, tmp_path: Path) -> None:
    secrets = {"docker/0": docker_config(SECURE, USER, PASSWORD)}
    output = {"image": f"{SECURE}/team/proxied", "secretRefs": [{"name": "push"}]}
    built = pod(secrets, output=output).built()
    assert inside.outside.secure_client("team/proxied", tmp_path / "ca.crt").exists(built.digest)
    assert set(inside.proxy.asked) == {f"CONNECT {SECURE}:443"}


def test_an_archive_comes_through_it(pod: Any, inside: Inside) -> None:
    url = "http://pages.test/page"
    source = {"http": {"url": url, "checksum": f"sha256:{'0' * 64}"}}
    failure = pod(source=source).failed("build", "--platform=linux/amd64")
    assert failure.reason is Reason.SOURCE_CHECKSUM_MISMATCH
    assert "GET pages.test:80" in inside.proxy.asked


def test_what_is_excepted_is_reached_directly(pod: Any, inside: Inside) -> None:
    pod().built()
    assert inside.proxy.asked == [], "registry and mirror are on loopback"


@pytest.mark.parametrize("step", ["git", "registry"])
def test_a_proxy_that_is_away_is_what_the_failure_is_about(
    pod: Any, inside: Inside, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    away = replace(inside.services, proxy={"http": f"http://127.0.0.1:{free_port()}"})
    app = pod(output={"image": f"{REGISTRY}/team/away"})
    if step == "git":
        app.spec["source"] = {"git": {"url": "http://git.test/proxied"}}
    app.services = away
    set_environment(monkeypatch, away)
    failure = app.failed("resolve") if step == "git" else app.failed("build", "--platform=linux/amd64")
    assert failure.reason is (Reason.GIT_UNREACHABLE if step == "git" else Reason.REGISTRY_UNREACHABLE)
    told = json.dumps([failure.message, failure.log_tail])
    assert away.proxy["http"].removeprefix("http://").rpartition(":")[2] in told
    assert step == "git" or "the proxy 127.0.0.1:" in told
