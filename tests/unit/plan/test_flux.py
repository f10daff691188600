"""What Flux serves is built once for each revision; what it does not serve is waited for."""

from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import FluxSource
from multiarchbuild.api.status import Result, Status, Trigger
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.flux import artifact_from
from tests.unit.plan.world import FLUX, INLINE, World, flux_object, kstatus, manifest

COMMIT, DIGEST = "a" * 40, f"sha256:{'d' * 64}"
WANTED = FluxSource.model_validate(FLUX["flux"])


def with_artifact(**fields: Any) -> dict[str, Any]:
    """Return a GitRepository whose artifact has these fields instead."""
    found = flux_object(COMMIT)
    found["status"]["artifact"] |= fields
    return found


@pytest.mark.parametrize(
    ("kind", "revision", "commit", "ref"),
    [
        ("GitRepository", f"main@sha1:{COMMIT}", COMMIT, "main"),
        ("GitRepository", f"refs/pull/7/head@sha1:{COMMIT}", COMMIT, "refs/pull/7/head"),
        ("GitRepository", f"sha1:{COMMIT}", COMMIT, COMMIT),
        ("GitRepository", f"v1@2@sha256:{'a' * 64}", "a" * 64, "v1@2"),
        ("OCIRepository", f"latest@{DIGEST}", None, None),
        ("Bucket", DIGEST, None, None),
        ("ExternalArtifact", "anything", None, None),
    ],
)
def test_each_kind_has_its_revisions(kind: str, revision: str, commit: str | None, ref: str | None) -> None:
    wanted = FluxSource.model_validate({"kind": kind, "name": "app"})
    found = artifact_from(with_artifact(revision=revision, digest=DIGEST), wanted)
    assert found.source, found.problem
    assert (found.source.commit, found.source.ref) == (commit, ref)
    assert (found.source.revision, found.source.digest) == (revision, DIGEST)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({}, "GitRepository 'app' has no artifact yet"),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no such host"}]}},
            "has no artifact yet: no such host",
        ),
        (with_artifact(url="file:///etc"), "without a usable url"),
        (with_artifact(url="http://s/" + "x" * 3000), "without a usable url"),
        (with_artifact(digest=""), "without a digest"),
        (with_artifact(digest="../../etc"), "without a digest"),
        (with_artifact(revision=""), "without a usable revision"),
        (with_artifact(revision="x" * 401), "without a usable revision"),
        (with_artifact(revision="main/1234"), "names no commit"),
    ],
)
def test_what_can_not_be_built_is_said(manifest: dict[str, Any], problem: str) -> None:
    found = artifact_from(manifest, WANTED)
    assert found.source is None
    assert problem in found.problem


def test_an_artifact_outlives_a_fetch_that_fails() -> None:
    failing = flux_object(COMMIT)
    failing["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": "no such host"}]
    assert artifact_from(failing, WANTED).source


def ready(status: Status) -> tuple[str, str, str]:
    """Return status, reason and message of the Ready condition."""
    (found,) = [condition for condition in status.conditions if condition.type == "Ready"]
    return found.status, found.reason, found.message


def built() -> World:
    """Return a world that has built what Flux served."""
    world = World(manifest(source=FLUX))
    world.settle()
    world.finish()
    return world


def test_a_run_builds_the_artifact_without_a_resolve_step() -> None:
    world = World(manifest(source=FLUX))
    world.settle()
    roles = {pod_from(pod).role for pod in world.pods.values()}
    assert roles == {Role.BUILD}
    handed = {pod_from(pod).source_annotation for pod in world.pods.values()}
    assert len(handed) == 1
    source = Source.model_validate_json(handed.pop())
    assert (source.commit, source.ref, source.revision) == (world.head, "main", f"main@sha1:{world.head}")
    assert source.url
    assert source.digest


def test_without_an_artifact_nothing_starts_and_status_says_what_is_missing() -> None:
    world = World(manifest(source=FLUX), served=False)
    decision = world.reconcile()
    assert (decision.before, world.status.run) == ((), None)
    assert ready(world.status)[:2] == ("False", Reason.SOURCE_NOT_READY)
    assert "GitRepository 'app' has no artifact yet: the run starts as soon as it has one" in ready(world.status)[2]
    assert kstatus(world.status, 1) == "InProgress"
    assert [event.reason for event in decision.events] == [Reason.SOURCE_NOT_READY]
    world.served = True
    world.settle()
    assert world.status.run
    assert world.status.run.trigger is Trigger.SPEC_CHANGED
    world.finish()


def test_a_new_revision_starts_a_run_and_the_same_does_not() -> None:
    world = built()
    first = world.status.run
    world.settle()
    assert world.status.run == first
    world.head = "b" * 40
    world.settle()
    run = world.status.run
    assert run
    assert run.source
    assert (run.trigger, run.source.commit) == (Trigger.SOURCE_CHANGED, world.head)
    world.finish()


def test_a_revision_that_comes_while_a_run_goes_on_is_built_after_it() -> None:
    world = World(manifest(source=FLUX))
    world.settle()
    first = world.status.run
    assert first
    assert first.source
    world.head = "b" * 40
    world.settle()
    assert world.status.run
    assert world.status.run.id == first.id
    world.finish()
    second = world.status.run
    assert second.source
    assert (second.trigger, second.source.commit) == (Trigger.SOURCE_CHANGED, world.head)
    assert world.status.history[0].id == first.id
    assert {commit for _, commit in world.built.values()} == {first.source.commit}


def test_a_failed_revision_is_not_tried_again_but_the_next_is() -> None:
    world = World(manifest(source=FLUX))
    world.settle()
    for pod in world.pods.values():
        world.fail(pod, Reason.BUILD_FAILED)
    world.settle()
    failed = world.status.run
    assert failed
    assert failed.result is Result.FAILED
    world.head = "b" * 40
    world.settle()
    assert world.status.run
    assert world.status.run.trigger is Trigger.SOURCE_CHANGED


def test_what_was_built_of_another_revision_is_not_carried_over() -> None:
    world = World(manifest(source=FLUX))
    world.settle()
    amd64, arm64 = world.pod(platform="linux/amd64"), world.pod(platform="linux/arm64")
    world.succeed(amd64)
    world.fail(arm64, Reason.BUILD_FAILED)
    world.served = False
    world.settle()
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    assert ready(world.status)[1] == Reason.SOURCE_NOT_READY
    world.head, world.served = "b" * 40, True
    world.settle()
    world.finish()
    used = [digest for digest, (_, commit) in world.built.items() if commit == world.head]
    assert len(used) == 2


def test_an_image_that_is_right_stays_ready_when_its_source_vanishes() -> None:
    world = built()
    world.served = False
    world.settle()
    assert ready(world.status)[0] == "True"
    assert ready(world.status)[2].endswith("GitRepository 'app' has no artifact yet")


def test_an_edit_while_the_source_is_missing_ends_the_run_that_goes_on() -> None:
    world = World(manifest(source=INLINE))
    world.settle()
    world.served = False
    world.edit(source=FLUX)
    world.settle()
    run = world.status.run
    assert run
    assert run.result is Result.SUPERSEDED
    assert ready(world.status)[:2] == ("False", Reason.SOURCE_NOT_READY)
    assert kstatus(world.status, 2) == "InProgress"
    world.served = True
    world.settle()
    world.finish()


def test_tags_are_made_from_the_revision() -> None:
    world = World(manifest(source=FLUX))
    world.edit(output={"image": "registry.example.com/team-a/app", "tags": ["{ref}-{shortCommit}"]})
    world.settle()
    world.finish()
    assert world.status.image
    assert world.status.image.tags == ("main-aaaaaaa",)
