"""Sources that change by themselves, and those that are not there yet."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hack.target import Target
from tests.support import source_controller
from tests.support.artifacts import CONTENT, Registry, tar
from tests.support.crds import skip_beside
from tests.support.git import GitServer
from tests.support.tenant import AMD64, TINY, Build, Status, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e
FILES = {"Dockerfile": "FROM busybox:1.36\nCOPY hello.txt /\n", "hello.txt": "one\n"}


def of_another_run(build: Build, run: str) -> Status:
    """Wait until a run after `run` has succeeded, which nobody has asked for."""
    status = build.until(
        lambda status: status["run"]["id"] != run and status["run"].get("result"), why="a run for the new source"
    )
    assert status["run"]["result"] == "Succeeded", json.dumps(status["run"], indent=1)
    assert status["run"]["trigger"] == "SourceChanged"
    return status


def hello(tenant: Tenant, status: Status) -> str:
    """Return what the image of linux/amd64 says."""
    digest = next(image["digest"] for image in status["image"]["platforms"] if image["platform"] == AMD64)
    return tenant.images.file(f"{tenant.image()}@{digest}", "/hello.txt")


def test_a_polled_branch_is_built_when_it_moves_and_a_look_that_fails_changes_nothing(
    tenant: Tenant, git_server: GitServer
) -> None:
    repository = git_server.repository(tenant.namespace)
    repository.commit(FILES)
    source = {"git": {"url": repository.url, "ref": "main", "interval": "10s"}}
    output = {"tags": ["{shortCommit}"]}
    build = tenant.build(source=source, output=output, platforms=[AMD64])
    first = build.succeeded()
    build.until(lambda status: status.get("source", {}).get("lastCheckedAt"), why="a look")
    assert build.status["run"]["id"] == first["run"]["id"], "the same commit starts no run"
    commit = repository.commit({**FILES, "hello.txt": "two\n"})
    second = of_another_run(build, first["run"]["id"])
    assert second["run"]["source"]["commit"] == second["source"]["commit"] == commit
    assert second["image"]["tags"] == [commit[:7]]
    assert hello(tenant, second) == "two\n"
    git_server.run("mv", f"/srv/git/{repository.name}", f"/srv/git/{repository.name}.away")
    failed = build.until(lambda status: status.get("source", {}).get("reason"), why="a look that fails")
    assert failed["source"]["reason"] == "GitRepositoryNotFound"
    ready = condition(failed, "Ready")
    assert ready["status"] == "True"
    assert "the last look at the source failed: GitRepositoryNotFound" in ready["message"]
    events = [event for event in build.events(SourceCheckFailed=1) if event["reason"] == "SourceCheckFailed"]
    assert len(events) == 1
    git_server.run("mv", f"/srv/git/{repository.name}.away", f"/srv/git/{repository.name}")
    build.until(lambda status: not status["source"].get("reason"), why="a look that finds it again")
    assert build.status["run"]["id"] == second["run"]["id"]


def test_a_commit_and_a_revision_that_touch_none_of_its_paths_are_looked_at_and_skipped(
    tenant: Tenant, git_server: GitServer
) -> None:
    repository = git_server.repository(tenant.namespace)
    files = {**{f"api/{name}": text for name, text in FILES.items()}, "web/index.html": "one\n"}
    repository.commit(files)
    paths = {"include": ["api", "libs/**/*.go"], "exclude": ["**/*.md"]}
    git = {"url": repository.url, "ref": "main", "subdirectory": "api"}
    build = tenant.build(source={"git": git, "paths": paths}, platforms=[AMD64])
    tenant.apply(source_controller.external_artifact("app"))
    source_controller.store(tenant, git_server, "externalartifacts", "app", files)
    flux = {"flux": {"kind": "ExternalArtifact", "name": "app", "subdirectory": "api"}, "paths": paths}
    of_flux = tenant.build("flux", source=flux, output={"image": tenant.image("flux")}, platforms=[AMD64])
    first, first_of_flux = build.succeeded(), of_flux.succeeded()
    assert first["run"]["source"]["paths"] != first_of_flux["run"]["source"]["paths"], "of git, and of files"

    def asked(commit: str) -> Status:
        tenant.kubectl("annotate", "--overwrite", "mab", "app", f"reconcile.fluxcd.io/requestedAt={commit}")
        return build.until(lambda status: status.get("source", {}).get("commit") == commit, why="a look")

    # It is asked for: neither of the two is polled.
    elsewhere = {**files, "web/index.html": "two\n", "api/README.md": "new\n"}
    commit = repository.commit(elsewhere)
    skipped = asked(commit)
    assert skipped["source"]["skipped"]
    assert skipped["run"]["id"] == first["run"]["id"]
    assert f"commit {commit} is not built" in condition(skipped, "Ready")["message"]
    revision = source_controller.store(tenant, git_server, "externalartifacts", "app", elsewhere)
    skipped = of_flux.until(lambda status: status.get("source", {}).get("revision") == revision, why="a look")
    assert skipped["source"]["skipped"]
    assert skipped["run"]["id"] == first_of_flux["run"]["id"]

    inside = {**elsewhere, "api/hello.txt": "two\n"}
    commit = repository.commit(inside)
    tenant.kubectl("annotate", "--overwrite", "mab", "app", f"reconcile.fluxcd.io/requestedAt={commit}")
    source_controller.store(tenant, git_server, "externalartifacts", "app", inside)
    assert of_another_run(build, first["run"]["id"])["run"]["source"]["commit"] == commit
    second = of_another_run(of_flux, first_of_flux["run"]["id"])
    (image,) = second["image"]["platforms"]
    assert tenant.images.file(f"{tenant.image('flux')}@{image['digest']}", "/hello.txt") == "two\n"


def test_a_polled_tag_of_an_artifact_is_built_when_it_moves(tenant: Tenant) -> None:
    facts = tenant.target.facts
    if not facts.registry_insecure:
        pytest.skip("artifacts are pushed by plain HTTP here")
    host, _, path = facts.registry.partition("/")
    repository = f"{path}/{tenant.namespace}/source".lstrip("/")
    registry = Registry(host)
    registry.push(repository, "main", (CONTENT, tar(FILES)))
    build = tenant.build(
        source={"oci": {"image": f"{host}/{repository}:main", "interval": "10s"}},
        platforms=[AMD64],
    )
    first = build.succeeded()
    build.until(lambda status: status.get("source", {}).get("lastCheckedAt"), why="a look")
    assert build.status["run"]["id"] == first["run"]["id"], "the same digest starts no run"
    # Packed in another way, which the step's own Python cannot read before 3.14.
    moved = tar({**FILES, "hello.txt": "two\n"}, mode="w:zst")
    digest = registry.push(repository, "main", ("application/vnd.oci.image.layer.v1.tar+zstd", moved))
    second = of_another_run(build, first["run"]["id"])
    assert second["run"]["source"]["digest"] == second["source"]["digest"] == digest
    assert hello(tenant, second) == "two\n"


@pytest.fixture
def no_flux(target: Target) -> Iterator[Target]:
    """The cluster without Flux, which it has again afterwards. A Flux that tests have not installed stays."""
    skip_beside(target, *source_controller.CRDS)
    source_controller.remove(target)
    yield target
    source_controller.install(target)


@pytest.mark.xdist_group("alone")
def test_a_source_of_flux_is_awaited_and_followed_though_flux_is_installed_last(
    no_flux: Target, tenant: Tenant, git_server: GitServer
) -> None:
    source = {"flux": {"kind": "ExternalArtifact", "name": "app"}}
    build = tenant.build(source=source, platforms=[AMD64])

    def not_ready(words: str) -> Any:
        return lambda status: words in condition(status, "Ready").get("message", "")

    status = build.until(not_ready("is of a kind that is not installed in this cluster"), why="what is missing")
    assert condition(status, "Ready")["reason"] == condition(status, "Reconciling")["reason"] == "SourceNotReady"
    assert "run" not in status
    source_controller.install(no_flux)
    tenant.apply(source_controller.external_artifact("app"))
    build.until(not_ready("ExternalArtifact 'app' has no artifact yet"), why="that it has seen the object")
    revision = source_controller.store(tenant, git_server, "externalartifacts", "app", FILES)
    first = build.succeeded()
    assert first["run"]["source"]["revision"] == revision
    assert hello(tenant, first) == "one\n"
    source_controller.store(tenant, git_server, "externalartifacts", "app", {**FILES, "hello.txt": "two\n"})
    second = of_another_run(build, first["run"]["id"])
    assert hello(tenant, second) == "two\n"
    tenant.kubectl("delete", "externalartifact", "app")
    gone = build.until(not_ready("does not exist in namespace"), why="that the object is gone")
    assert condition(gone, "Ready")["status"] == "True", "what was built is still right"


def test_a_frontend_that_can_not_be_pulled_is_told_with_the_remedy(tenant: Tenant) -> None:
    build = tenant.build(source=inline(f"# syntax=docker/dockerfile:1\n{TINY}"), platforms=[AMD64], retries=0)
    status = build.ended()
    entry = platform(status, AMD64)
    assert entry["reason"] in {"FrontendUnavailable", "RegistryUnreachable"}, entry
    assert "The frontend docker.io/docker/dockerfile:1" in entry["message"]
    assert "set images.frontend to `builtin`" in entry["message"]
    build.patch(source=inline(TINY))
    build.succeeded()
