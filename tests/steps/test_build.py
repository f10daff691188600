import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Source
from tests.steps.conftest import PASSWORD, USER, Pods, Services, docker_config
from tests.support.pace import slowness

BUILD = ("build", "--platform=linux/amd64")


def inline(dockerfile: str, **files: str) -> dict[str, Any]:
    return {"inline": {"files": {"Dockerfile": dockerfile, **files}}}


def test_an_inline_source_is_built_and_pushed_by_digest_with_provenance(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY . /app\nRUN cat /app/src.txt > /copy", **{"src.txt": "hello"}))
    built = app.built()
    image, attestation = services.client(app.image).get(built.digest).content["manifests"]
    assert image["platform"] == {"architecture": "amd64", "os": "linux"}
    assert attestation["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    assert [(each.platform, each.digest) for each in built.images] == [("linux/amd64", image["digest"])]
    assert (built.cache.hits, built.cache.total) == (0, 2)


def test_the_same_source_makes_the_same_image(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY . /app\nRUN date -r /app/Dockerfile +%s > /time"))
    first, second = app.built(), app.built()
    images = {
        services.client(app.image).get(built.digest).content["manifests"][0]["digest"] for built in (first, second)
    }
    assert len(images) == 1
    assert second.cache.hits == second.cache.total == 2


def test_the_log_reads_like_that_of_a_build(pod: Pods, capfd: pytest.CaptureFixture[str]) -> None:
    pod(source=inline("FROM busybox:1.36\nRUN echo made on $(uname -m)")).built()
    log = capfd.readouterr().out
    assert "[2/2] RUN echo made on $(uname -m)\n" in log
    assert "made on x86_64\n" in log
    assert "0 of 1 steps were cached" in log


@pytest.mark.parametrize("value", ["a,b=c", 'quo"ted', "line\nbreak", "$(HOME) $HOME `id`", "--flag", "ü, \\ '"])
def test_a_build_argument_arrives_as_it_is(pod: Pods, capfd: pytest.CaptureFixture[str], value: str) -> None:
    dockerfile = "FROM busybox:1.36\nARG VALUE\nRUN printf %s \"$VALUE\" | od -An -v -tx1 | tr -d ' \\n'; echo"
    pod(source=inline(dockerfile), build={"args": {"VALUE": value}}).built()
    assert f" {value.encode().hex()}\n" in capfd.readouterr().out


def test_secrets_and_labels_and_targets(pod: Pods, capfd: pytest.CaptureFixture[str]) -> None:
    dockerfile = "FROM busybox:1.36 AS one\nRUN --mount=type=secret,id=npm sed s/^/token-/ /run/secrets/npm\nFROM none"
    build = {
        "target": "one",
        "labels": {"org.example.title": "a, b"},
        "secrets": [{"id": "npm", "secretKeyRef": {"name": "npm", "key": "to.ken"}}],
    }
    pod({"secrets/npm": {"to.ken": "value"}}, source=inline(dockerfile), build=build).built()
    assert "token-value\n" in capfd.readouterr().out


def test_network_none_is_none(pod: Pods, capfd: pytest.CaptureFixture[str]) -> None:
    pod(source=inline("FROM busybox:1.36\nRUN ls /sys/class/net"), build={"network": "None"}).built()
    assert capfd.readouterr().out.count(" lo\n") == 1


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_what_the_source_says_to_ignore_is_not_in_the_context(
    pod: Pods, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    files = {name: "*\n!src\nsrc/*.log\n", "secret": "", "src/index.js": "", "src/debug.log": ""}
    pod(source=inline(f"FROM busybox:1.36\nCOPY . /app\nRUN : {name}; find /app -type f", **files)).built()
    printed = re.findall(r" (/app/\S+)$", capfd.readouterr().out, re.MULTILINE)
    assert printed == ["/app/src/index.js"]


def test_several_platforms_with_one_builder_make_one_index(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    outcome = app.run(*BUILD, "--platform=linux/arm64")
    assert isinstance(outcome, Built)
    found = services.client(app.image).get(outcome.digest).content["manifests"]
    assert [each.digest for each in outcome.images] == [entry["digest"] for entry in found[:2]]
    assert [each.platform for each in outcome.images] == ["linux/amd64", "linux/arm64"]
    assert [entry["platform"]["architecture"] for entry in found] == ["amd64", "arm64", "unknown", "unknown"]


def test_the_cache_of_a_registry_is_written_and_read(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nRUN head -c 9 /dev/urandom > /random"))
    ref = f"{services.registry}/{app.image}:cache-a"
    app.built(f"--cache-to={ref}", f"--cache-from={ref}", f"--cache-from={ref}-none")
    response = services.client(app.image).http.request(
        "HEAD",
        f"http://{services.registry}/v2/{app.image}/manifests/cache-a",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    assert response.status == 200
    assert app.built(f"--cache-from={ref}").cache.hits == 1


def test_without_import_every_step_is_executed_and_the_cache_is_written(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nRUN head -c 9 /dev/urandom > /random"))
    app.built()
    app.spec["cache"] = {"import": False}
    assert app.built(f"--cache-to={services.registry}/{app.image}:cache-a").cache.hits == 0
    assert services.client(app.image).resolve("cache-a").raw


def test_a_cache_that_never_answers_costs_seconds_only(pod: Pods, services: Services) -> None:
    ref = f"{services.silent}/team/app:cache"
    began = time.monotonic()
    pod(source=inline("FROM busybox:1.36\nRUN echo 1 > /one")).built(f"--cache-to={ref}", f"--cache-from={ref}")
    took = time.monotonic() - began
    assert took < 10 * slowness()


def test_a_registry_with_a_password_and_a_ca_of_its_own(pod: Pods, services: Services, tmp_path: Any) -> None:
    image = f"{services.secure}/team/app"
    output = {"image": image, "secretRefs": [{"name": "push"}]}
    secrets = {"docker/0": docker_config(services.secure, USER, PASSWORD)}
    built = pod(secrets, output=output).built(f"--cache-to={image}:cache", f"--cache-from={image}:cache")
    assert services.secure_client("team/app", tmp_path / "ca.crt").exists(built.digest)


def test_wrong_credentials_are_told_before_anything_is_built(
    pod: Pods, services: Services, capfd: pytest.CaptureFixture[str]
) -> None:
    output = {"image": f"{services.secure}/team/app", "secretRefs": [{"name": "push"}]}
    secrets = {"docker/0": docker_config(services.secure, USER, "wrong")}
    failure = pod(secrets, output=output).failed(*BUILD)
    assert failure.reason is Reason.PUSH_DENIED
    assert "answered 401" in failure.message
    assert "output.secretRefs" in failure.message
    assert "load build definition" not in capfd.readouterr().out


def test_wrong_credentials_are_told_while_the_source_is_still_waited_for(pod: Pods, services: Services) -> None:
    services.git.commit("waiting", {"Dockerfile": "FROM busybox:1.36\n"})
    git = {"git": {"url": services.git.url("waiting")}}
    assert pod(source=git, output={"image": f"{services.secure}/team/app"}).failed(*BUILD).reason is Reason.PUSH_DENIED


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"output": {"image": "127.0.0.1:1/team/app"}}, Reason.REGISTRY_UNREACHABLE),
        ({"source": inline("FROM busybox:1.36\nRUN exit 3")}, Reason.BUILD_FAILED),
        ({"source": inline("FROM busybox:1.36\nNOTHING")}, Reason.DOCKERFILE_INVALID),
        ({"build": {"dockerfile": "other"}}, Reason.DOCKERFILE_NOT_FOUND),
        ({"build": {"target": "other"}}, Reason.TARGET_NOT_FOUND),
        ({"source": inline("FROM team/nothing")}, Reason.BASE_IMAGE_NOT_FOUND),
        ({"build": {"secrets": [{"id": "a", "secretKeyRef": {"name": "s", "key": "k"}}]}}, Reason.SECRET_NOT_FOUND),
    ],
)
def test_failures_have_their_reasons(pod: Pods, parts: dict[str, Any], reason: Reason) -> None:
    assert pod(**parts).failed(*BUILD).reason is reason


def test_a_secret_of_another_type_is_told(pod: Pods, services: Services) -> None:
    output = {"image": f"{services.registry}/team/x", "secretRefs": [{"name": "push"}]}
    failure = pod({"docker/0": {"password": "x"}}, output=output).failed(*BUILD)
    assert failure.reason is Reason.SECRET_INVALID
    assert "needs the key `.dockerconfigjson` and has `password`" in failure.message


def test_a_commit_is_built_with_its_time(pod: Pods, services: Services, capfd: pytest.CaptureFixture[str]) -> None:
    dockerfile = "FROM busybox:1.36\nCOPY . /app\nRUN stat -c 'file %Y' /app/f; ls -a /app | tr '\\n' ' '; echo"
    commit = services.git.commit("app", {"app/Dockerfile": dockerfile, "app/f": "1"})
    built = pod(source={"git": {"url": services.git.url("app"), "subdirectory": "app"}}).built(
        source=Source(commit=commit)
    )
    assert built.source_time is not None
    log = capfd.readouterr().out
    assert f"file {built.source_time}\n" in log
    assert ". .. Dockerfile f \n" in log


def test_the_commit_stands_in_the_provenance(pod: Pods, services: Services) -> None:
    url = services.git.url("provenance")
    commit = services.git.commit("provenance", {"Dockerfile": "FROM busybox:1.36\nRUN true\n"})
    app = pod(source={"git": {"url": url}})
    client = services.client(app.image)
    attestation = client.get(app.built(source=Source(commit=commit)).digest).content["manifests"][1]
    (layer,) = client.get(attestation["digest"]).content["layers"]
    blob = client.http.request("GET", f"http://{services.registry}/v2/{app.image}/blobs/{layer['digest']}")
    assert {"source": url, "revision": commit}.items() <= _find(json.loads(blob.data), "vcs").items()


def test_a_link_out_of_the_repository_is_no_build_context(pod: Pods, services: Services) -> None:
    services.git.commit("link", {"Dockerfile": ""})
    (services.git.root / ".work-link" / "out").symlink_to("/etc")
    services.git._git(services.git.root / ".work-link", "add", "out")
    services.git._git(services.git.root / ".work-link", "commit", "--quiet", "--message=link")
    services.git._git(services.git.root / ".work-link", "push", "--quiet", str(services.git.root / "link"), "HEAD:main")
    commit = services.git._git(services.git.root / ".work-link", "rev-parse", "HEAD").strip()
    source = {"git": {"url": services.git.url("link"), "subdirectory": "out"}}
    failure = pod(source=source).failed(*BUILD, source=Source(commit=commit))
    assert failure.reason is Reason.DOCKERFILE_NOT_FOUND
    assert "no folder 'out'" in failure.message


def _find(document: Any, key: str) -> dict[str, Any]:
    if isinstance(document, dict):
        if isinstance(found := document.get(key), dict):
            return found
        return next(filter(None, (_find(value, key) for value in document.values())), {})
    return {}


SYNTAX = "# syntax=docker/dockerfile:1\nFROM busybox:1.36\nRUN echo read by a frontend\n"


def test_a_frontend_that_can_not_be_pulled_is_told_with_its_remedies(pod: Pods) -> None:
    failure = pod(source=inline(SYNTAX)).failed(*BUILD)
    assert failure.reason in {Reason.FRONTEND_UNAVAILABLE, Reason.REGISTRY_UNREACHABLE}
    assert "The frontend docker.io/docker/dockerfile:1, which the `# syntax=` line" in failure.message
    assert "Remove that line" in failure.message
    assert "images.frontend" in failure.message


def test_by_policy_the_frontend_of_buildkit_reads_every_dockerfile(pod: Pods) -> None:
    app = pod(source=inline(SYNTAX), build={"args": {"BUILDKIT_SYNTAX": "no.such.invalid/dockerfile:1"}})
    app.frontend = "builtin"
    assert app.built().digest


def test_by_policy_another_frontend_reads_every_dockerfile(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\n"))
    app.frontend = f"{services.registry}/no/frontend:1"
    failure = app.failed(*BUILD)
    assert failure.reason is Reason.FRONTEND_UNAVAILABLE
    assert f"The frontend {services.registry}/no/frontend:1" in failure.message


def test_named_contexts_are_images_repositories_and_archives(
    pod: Pods, services: Services, capfd: pytest.CaptureFixture[str]
) -> None:
    services.git.commit("context.git", {"hello.txt": "from a repository\n"})
    base = services.client("library/busybox").resolve("1.36").digest
    dockerfile = "FROM base\nCOPY --from=assets hello.txt /\nRUN cat /hello.txt\n"
    contexts = {
        "base": f"docker-image://{services.registry}/library/busybox@{base}",
        "assets": f"{services.git.url('context.git')}#main",
    }
    pod(source=inline(dockerfile), build={"contexts": contexts}).built()
    assert "from a repository\n" in capfd.readouterr().out


def test_a_private_base_image_is_pulled_with_the_credentials_of_the_output(
    pod: Pods, services: Services, tmp_path: Path
) -> None:
    own = tmp_path / "registry"
    own.mkdir()
    private = services.secure_client("team/private", own / "ca.crt")
    app = pod(source=inline("FROM busybox:1.36\n"), output={"image": f"{services.secure}/team/private"})
    app.spec["output"]["secretRefs"] = [{"name": "registry"}]
    app.secrets["docker/0"] = docker_config(services.secure, USER, PASSWORD)
    digest = app.built().digest
    assert private.exists(digest)
    image = f"{services.registry}/team/on-private"
    source = inline(f"FROM {services.secure}/team/private@{digest}\n")
    on_it = pod({"docker/0": app.secrets["docker/0"]}, source=source)
    on_it.spec["output"] = {"image": image, "secretRefs": [{"name": "registry"}]}
    assert on_it.built().digest
    # By digest a builder that has pulled it once has it.
    without = pod(source=inline(f"FROM {services.secure}/team/private:1\n"), output={"image": image})
    failure = without.failed(*BUILD)
    assert (failure.reason, "output.secretRefs" in failure.message) == (Reason.BASE_IMAGE_DENIED, True)


def test_a_secret_that_buildkit_does_not_take_is_told_before_anything_is_built(
    pod: Pods, capfd: pytest.CaptureFixture[str]
) -> None:
    build = {"secrets": [{"id": "bundle", "secretKeyRef": {"name": "big-bundle", "key": "pem"}}]}
    failure = pod({"secrets/bundle": {"pem": "x" * 512_001}}, build=build).failed(*BUILD)
    assert failure.reason is Reason.SECRET_INVALID
    assert "The Secret 'big-bundle' of build.secrets (id 'bundle') has 512001 bytes" in failure.message
    assert "at most 512000 bytes" in failure.message
    assert "load build definition" not in capfd.readouterr().out
    pod({"secrets/bundle": {"pem": "x" * 512_000}}, build=build).built()


def test_a_folder_in_the_place_of_the_dockerfile_is_told(pod: Pods) -> None:
    source = {"inline": {"files": {"docker/Dockerfile": "FROM busybox:1.36\n"}}}
    failure = pod(source=source, build={"dockerfile": "docker"}).failed(*BUILD)
    assert failure.reason is Reason.DOCKERFILE_NOT_FOUND
    assert "'docker' is a folder in the source: build.dockerfile names a file" in failure.message


def test_a_build_that_is_not_done_in_time_names_what_went_on_with_its_last_lines(pod: Pods) -> None:
    source = inline("FROM busybox:1.36\nRUN echo first; printf 'the last words'; sleep 600\n")
    began = time.monotonic()
    failure = pod(source=source).failed(*BUILD, "--seconds=10")
    assert time.monotonic() - began < 10
    assert failure.reason is Reason.TIMED_OUT
    assert "[2/2] RUN echo first; printf 'the last words'; sleep 600 was still running" in failure.message
    assert failure.log_tail == "first\nthe last words"


def test_what_a_program_prints_last_is_in_the_tail_however_much_it_prints(pod: Pods) -> None:
    command = "seq 1 400000; echo the reason; exit 3"
    failure = pod(source=inline(f"FROM busybox:1.36\nRUN {command}\n")).failed(*BUILD)
    assert failure.reason is Reason.BUILD_FAILED
    assert "the reason" in failure.log_tail.splitlines()


def test_what_buildkit_keeps_is_bounded_in_bytes(services: Services) -> None:
    command = ["buildctl", "--addr", f"unix://{services.socket}", "debug", "workers", "--verbose"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"All:\s+true\n(.*\n)*?\s+Maximum used space:\s+21\.47", told), told
