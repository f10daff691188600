"""Logins by repository reach BuildKit, which knows one for each registry: a real registry asks for tokens by scope."""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built
from multiarchbuild.plan.proxy import ProxyPolicy
from tests.cluster import build, pki
from tests.cluster.layout import cache_directory
from tests.steps.conftest import PASSWORD, USER, Pod, Pods, Services, start_buildkitd
from tests.steps.servers import Proxy, listens, registry_config, running, wait
from tests.steps.token_server import TokenServer
from tests.support.ports import free_port

# Not on loopback, as a pod sees it: Go asks no proxy about that.
REGISTRY, TOKENS = "registry.test:5000", "tokens.test"
LOGINS = {("app", "a-1"): "team/app", ("cache", "c-2"): "team/cache", ("base", "b-3"): "group/base"}


@dataclass(frozen=True)
class World:
    """A registry with a token server, behind a proxy."""

    services: Services
    tokens: TokenServer


@pytest.fixture(scope="module")
def world(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("logins")
    built = build.ensure(cache_directory({}))
    authority = pki.Authority(folder, "ca")
    pair = authority.issue("tokens", common_name=TOKENS, hosts=(TOKENS,))
    tokens, port = TokenServer(authority, pair, dict(LOGINS)), free_port()
    config = registry_config(port, folder / "storage", auth=tokens.auth(f"https://{TOKENS}/token?own=1"))
    (folder / "registry.json").write_text(config)
    with ExitStack() as stack:
        stack.enter_context(tokens.serving())
        program = str(built.programs["registry"])
        stack.enter_context(running(program, "serve", str(folder / "registry.json"), log=folder / "registry.log"))
        wait(lambda: listens(port))
        proxy = Proxy({REGISTRY: f"127.0.0.1:{port}", f"{TOKENS}:443": tokens.address})
        stack.enter_context(proxy.serving())
        # The registry's own CA: it has to reach its token server, too.
        registry = {"host": REGISTRY, "plainHttp": True, "caBundle": Path(authority.pair.cert).read_text()}
        behind = replace(
            services,
            others=(registry,),
            proxy={"http": proxy.url, "https": proxy.url},
            socket=folder / "buildkitd.sock",
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ProxyPolicy.model_validate(behind.proxy).environment.items():
                patch.setenv(name, value)
            start_buildkitd(stack, str(built.programs["buildkitd"]), folder, behind)
            yield World(behind, tokens)


def config(**logins: tuple[str, str]) -> dict[str, str]:
    """Return the content of a Secret with logins by the beginning of a repository."""
    auths = {
        f"{REGISTRY}/{path}" if path != "_" else REGISTRY: {"auth": base64.b64encode(":".join(login).encode()).decode()}
        for path, login in logins.items()
    }
    return {".dockerconfigjson": json.dumps({"auths": auths})}


ALL = {path: login for login, path in LOGINS.items()}


def pod(world: World, folder: Path, image: str, dockerfile: str, **logins: tuple[str, str]) -> Pod:
    spec: dict[str, Any] = {
        "platforms": ["linux/amd64"],
        "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
        "output": {"image": f"{REGISTRY}/{image}", "secretRefs": [{"name": "registry"}]},
    }
    world.tokens.asked.clear()
    return Pod(folder, world.services, image, spec, {"docker/0": config(**logins)})


@pytest.fixture
def base(world: World, short_path: Path) -> str:
    """An image that only the login of its own repository may pull, from which nobody may mount blobs."""
    folder = short_path / "base"
    folder.mkdir()
    built = pod(world, folder, "group/base", "FROM scratch\nCOPY Dockerfile /base\n", **ALL).built()
    return f"{REGISTRY}/group/base@{built.digest}"


def test_each_repository_of_a_registry_is_used_with_its_own_login(world: World, short_path: Path, base: str) -> None:
    folder = short_path / "app"
    folder.mkdir()
    cache = f"{REGISTRY}/team/cache:cache-x"
    app = pod(world, folder, "team/app", f"FROM {base}\nCOPY Dockerfile /own\n", **ALL)
    app.built(f"--cache-to={cache}", f"--cache-from={cache}")
    again = app.built(f"--cache-to={cache}", f"--cache-from={cache}")
    assert (again.cache.hits, again.cache.total) == (1, 1)

    users = {(user, scope.split(":")[1]) for user, scope in world.tokens.asked}
    assert users == {("app", "team/app"), ("cache", "team/cache"), ("base", "group/base")}
    # What buildctl was given has no login in it.
    given = "".join(file.read_text() for file in folder.rglob("docker/config.json"))
    assert "auths" in given
    assert not any(base64.b64encode(":".join(login).encode()).decode() in given for login in LOGINS)


def test_a_repository_without_a_login_is_pulled_as_everybody_may(world: World, short_path: Path, base: str) -> None:
    folder = short_path / "public"
    folder.mkdir()
    world.tokens.logins["publisher", "p"] = "public/"
    image = pod(world, folder, "public/base", f"FROM {base}\n", **ALL, public=("publisher", "p")).built()
    folder = short_path / "app"
    folder.mkdir()
    dockerfile = f"FROM {REGISTRY}/public/base@{image.digest}\nCOPY Dockerfile /own\n"
    pod(world, folder, "team/app", dockerfile, **{"team/app": ("app", "a-1")}).built()
    assert ("", "repository:public/base:pull") in world.tokens.asked
    assert {user for user, scope in world.tokens.asked if "public/base" in scope} == {""}


def test_a_login_that_is_refused_is_told_with_the_repository(world: World, short_path: Path, base: str) -> None:
    folder = short_path / "app"
    folder.mkdir()
    logins = {**ALL, "group/base": ("base", "wrong")}
    failure = pod(world, folder, "team/app", f"FROM {base}\nCOPY Dockerfile /x\n", **logins).failed(
        "build", "--platform=linux/amd64"
    )
    assert failure.reason is Reason.BASE_IMAGE_DENIED, failure.message
    assert "group/base" in failure.message


def test_a_registry_without_a_token_server_is_used_with_one_login(pod: Pods, services: Services) -> None:
    login, other = (base64.b64encode(text.encode()).decode() for text in (f"{USER}:{PASSWORD}", "cache:c"))
    auths = {f"{services.secure}/team": {"auth": login}, f"{services.secure}/cache": {"auth": other}}
    app = pod({"docker/0": {".dockerconfigjson": json.dumps({"auths": auths})}})
    app.spec["output"] = {"image": f"{services.secure}/{app.image}", "secretRefs": [{"name": "registry"}]}
    cache = f"{services.secure}/cache/app:cache-x"
    outcome = app.run("build", "--platform=linux/amd64", f"--cache-to={cache}")
    assert isinstance(outcome, Built), outcome
    (warning,) = outcome.warnings
    assert "its login is not that of output.image" in warning
    assert services.secure in warning


def test_a_login_for_a_registry_that_does_not_answer_costs_seconds_only(
    pod: Pods, services: Services, capfd: pytest.CaptureFixture[str]
) -> None:
    login = {"auth": base64.b64encode(b"user:password").decode()}
    auths = {f"{services.silent}/team": login, "nowhere.invalid/team": login}
    app = pod({"docker/0": {".dockerconfigjson": json.dumps({"auths": auths})}})
    app.spec["output"]["secretRefs"] = [{"name": "registry"}]
    assert app.built().digest
    told = capfd.readouterr().out
    assert f"cannot ask {services.silent} how it wants to be logged in to" in told
    assert "cannot ask nowhere.invalid" in told
