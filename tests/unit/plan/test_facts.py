"""What pods have ended with counts, whatever the clock, a cancel or an edit says later."""

from collections.abc import Callable
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.status import HistoryEntry, Phase, Result, RunStatus, Trigger
from multiarchbuild.plan.children import Role, pod_from
from tests.unit.plan.world import COMMIT, START, World, kstatus, manifest

AMD64, ARM64 = "linux/amd64", "linux/arm64"


def run_of(world: World) -> RunStatus:
    assert world.status.run is not None
    return world.status.run


def cancel(world: World) -> None:
    world.annotate(CANCEL_ANNOTATION, run_of(world).id)


def edit(world: World) -> None:
    world.edit(build={"args": {"A": "1"}})


def suspend_and_edit(world: World) -> None:
    world.edit(suspend=True, build={"args": {"A": "1"}})


def move_elsewhere(world: World) -> None:
    world.edit(output={"image": "registry.example.com/team-a/other", "tags": ["v2"]})


LATER: dict[str, Callable[[World], object]] = {
    "the deadline passes": lambda w: w.advance(2 * 3600),
    "it is cancelled": cancel,
    "it is edited": edit,
    "it is edited and suspended": suspend_and_edit,
    "its image is another now": move_elsewhere,
    "a rebuild is requested": lambda w: w.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z"),
}


def publishing(**fields: Any) -> World:
    """Return a cluster in which all is built and the publish step runs."""
    world = World(manifest(**fields))
    world.settle()
    world.succeed_all(Role.BUILD)
    world.settle()
    world.start(world.pod(Role.PUBLISH))
    world.settle()
    return world


def entry_of(world: World, run: str) -> HistoryEntry:
    (entry,) = (entry for entry in world.status.history if entry.id == run)
    return entry


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_what_was_published_is_in_status(later: Callable[[World], object]) -> None:
    world = publishing()
    run = run_of(world).id
    world.succeed_all(Role.PUBLISH)
    later(world)
    world.reconcile()
    assert (run_of(world).id, run_of(world).result) == (run, Result.SUCCEEDED)
    assert run_of(world).finished_at == START, "when it was published, not when somebody looked"
    assert {entry.phase for entry in run_of(world).platforms} == {Phase.SUCCEEDED}
    image = world.status.image
    assert image is not None
    assert image.ref == f"registry.example.com/team-a/app@{world.published[run]}"
    assert (image.tags, image.published_at) == (("latest",), START)
    assert (entry_of(world, run).result, entry_of(world, run).digest) == (Result.SUCCEEDED, image.digest)


@pytest.mark.parametrize("later", [edit, move_elsewhere], ids=["edited", "image"])
def test_an_edit_starts_its_own_run_once_the_last_is_recorded(later: Callable[[World], object]) -> None:
    world = publishing()
    first = run_of(world).id
    world.succeed_all(Role.PUBLISH)
    later(world)
    decision = world.reconcile()
    assert [event.reason for event in decision.events] == [Reason.SUCCEEDED]
    assert not decision.wake_after, "it starts at once"
    assert kstatus(world.status, 2) == "InProgress"
    world.settle()
    assert (run_of(world).trigger, run_of(world).result) == (Trigger.SPEC_CHANGED, None)
    assert [entry.id for entry in world.status.history] == [first]


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_a_builder_that_ended_well_stays_succeeded(later: Callable[[World], object]) -> None:
    world = World(manifest())
    world.settle()
    first = run_of(world)
    world.start(world.pod(platform=ARM64))
    world.settle()
    world.succeed(world.pod(platform=AMD64))
    later(world)
    world.reconcile()
    if run_of(world).id != first.id:
        assert entry_of(world, first.id).result is Result.SUPERSEDED
        return
    phases = {entry.platform: entry.phase for entry in run_of(world).platforms}
    assert phases == {AMD64: Phase.SUCCEEDED, ARM64: Phase.STOPPED}
    assert run_of(world).platforms[0].digest


@pytest.mark.parametrize(
    "later", [LATER["the deadline passes"], cancel, suspend_and_edit], ids=["time", "cancel", "edit"]
)
def test_a_failure_that_was_final_is_why_the_run_failed(later: Callable[[World], object]) -> None:
    world = World(manifest(platforms=[AMD64]))
    world.settle()
    world.fail(world.pod(), Reason.BUILD_FAILED, "RUN false failed", "the last lines")
    later(world)
    world.reconcile()
    assert (run_of(world).result, run_of(world).reason) == (Result.FAILED, Reason.BUILD_FAILED)
    assert run_of(world).platforms[0].log_tail == "the last lines"


def test_a_source_that_was_resolved_is_in_the_status_of_a_run_that_took_too_long() -> None:
    world = World(manifest(source={"git": {"url": "https://git.example.com/app.git", "ref": "main"}}))
    world.settle()
    world.succeed_all(Role.RESOLVE)
    world.advance(2 * 3600)
    world.reconcile()
    source = run_of(world).source
    assert run_of(world).reason is Reason.TIMED_OUT
    assert source is not None
    assert source.commit == world.head != COMMIT


@pytest.mark.parametrize("later", [cancel, edit, suspend_and_edit], ids=["cancel", "edit", "suspend"])
def test_tags_that_are_being_moved_are_waited_for(later: Callable[[World], object]) -> None:
    world = publishing()
    run = run_of(world).id
    later(world)
    decision = world.settle()
    assert (run_of(world).id, run_of(world).result, run_of(world).reason) == (run, None, Reason.PUBLISHING)
    assert "waits for the publish step, which may have moved the tags" in (run_of(world).message or "")
    assert (decision.after, decision.wake_after and decision.wake_after.total_seconds()) == ((), 30)
    world.succeed_all(Role.PUBLISH)
    world.reconcile()
    assert (run_of(world).id, run_of(world).result) == (run, Result.SUCCEEDED)


def test_a_publish_step_that_hangs_does_not_keep_its_run_from_being_cancelled() -> None:
    world = publishing()
    cancel(world)
    world.advance(30)
    world.settle()
    assert run_of(world).result is Result.CANCELLED
    assert not [pod for pod in world.pods.values() if pod["status"]["phase"] == "Running"]


def test_tags_that_were_moved_in_the_last_moment_are_known_all_the_same() -> None:
    world = publishing()
    run = run_of(world).id
    cancel(world)
    world.advance(30)
    world.reconcile(killed_after=1)  # the status is written, the pod lives on
    assert run_of(world).result is Result.CANCELLED
    world.succeed_all(Role.PUBLISH)
    decision = world.reconcile()
    assert run_of(world).result is Result.SUCCEEDED
    assert [event.reason for event in decision.events] == [Reason.SUCCEEDED]
    assert entry_of(world, run).digest == world.published[run]
    assert kstatus(world.status, 1) == "Current"


def test_of_two_runs_the_image_is_that_which_was_published_last() -> None:
    world = publishing()
    first = run_of(world).id
    edit(world)
    world.advance(30)
    world.reconcile(killed_after=4)  # the pod of the first run lives on beside the second run
    assert run_of(world).id != first
    world.succeed(world.pod(Role.PUBLISH))
    world.settle()
    assert world.status.image is not None
    assert world.status.image.digest == world.published[first]
    assert entry_of(world, first).result is Result.SUCCEEDED
    world.advance(1)
    world.finish()
    assert world.status.image.digest == world.published[run_of(world).id]


def test_what_a_run_has_published_that_no_status_tells_of_is_the_image() -> None:
    world = World(manifest(platforms=[AMD64]))
    world.settle()
    world.succeed(world.pod())
    world.annotate(CANCEL_ANNOTATION, run_of(world).id)
    world.reconcile()
    assert run_of(world).result is Result.CANCELLED, "it has built, and not published"
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:01Z")
    world.reconcile(killed_after=2)  # the publish pod of the second run exists, its status does not
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:02Z")
    unknown = pod_from(world.pod(Role.PUBLISH)).run_id
    world.succeed(world.pod(Role.PUBLISH))
    world.reconcile()
    assert run_of(world).id != unknown
    assert world.status.image is not None, "tags were moved"
    assert world.status.image.digest == world.published[unknown]
    world.advance(1)
    world.settle()
    world.succeed(world.pod(Role.PUBLISH))
    world.settle()
    assert world.status.image.digest == world.published[run_of(world).id], "the newer one"


def test_a_builder_that_was_given_up_for_lost_may_still_succeed() -> None:
    world = World(manifest(platforms=[AMD64]))
    world.settle()
    first = world.pod()
    world.schedule(first)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    first["status"]["containerStatuses"] = [{"name": "step", "state": waiting}]
    world.advance(121)
    world.reconcile(killed_after=1)  # status is written, the pod lives on
    world.advance(5)
    world.reconcile(killed_after=2)
    assert len(world.pods) == 2, "a second attempt"
    world.succeed(first)
    world.settle()
    (entry,) = run_of(world).platforms
    assert (entry.phase, entry.attempt, entry.pod) == (Phase.SUCCEEDED, 1, first["metadata"]["name"])
    assert first["metadata"]["name"] in world.pods
