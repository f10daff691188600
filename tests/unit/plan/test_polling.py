"""A repository with `interval` is looked at between runs, and only a commit that differs starts one."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.status import Result, Status, Trigger
from multiarchbuild.plan.actions import StartResolve
from multiarchbuild.plan.build_summary import BuildSummary, summarize
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.sources import poll_interval
from tests.unit.plan.world import GIT, INLINE, POLLED, POLLED_TAG, START, World, build, digest_of, manifest

MOVED = "b" * 40


def ready(status: Status) -> tuple[str, str]:
    """Return status and message of the Ready condition."""
    (found,) = [condition for condition in status.conditions if condition.type == "Ready"]
    return found.status, found.message


def checks(world: World) -> list[str]:
    """Return the names of the pods that look."""
    return [name for name, pod in world.pods.items() if pod_from(pod).role is Role.CHECK]


def built(result: Result = Result.SUCCEEDED, source: Mapping[str, Any] = POLLED) -> World:
    """Return a world whose polled build has ended so, a second after it began."""
    world = World(manifest(source=source))
    world.settle()
    world.succeed_all(Role.RESOLVE)
    world.settle()
    if result is Result.CANCELLED:
        assert world.status.run
        world.annotate(CANCEL_ANNOTATION, world.status.run.id)
        world.settle()
        return world
    world.advance(1)
    if result is Result.FAILED:
        for pod in list(world.pods.values()):
            if pod_from(pod).role is Role.BUILD:
                world.fail(pod, Reason.BUILD_FAILED)
        world.settle()
        return world
    world.finish()
    return world


def due(world: World) -> None:
    """Let time pass until the next look has started."""
    wake = world.decide().wake_after
    assert wake
    world.now += wake
    world.settle()
    assert len(checks(world)) == 1


def look(world: World) -> None:
    """Let time pass until a look has started, and let it succeed."""
    due(world)
    world.succeed_all(Role.CHECK)
    world.reconcile()


@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED, Result.CANCELLED])
def test_a_look_is_due_an_interval_after_the_run_had_looked_itself(result: Result) -> None:
    world = built(result)
    assert world.status.run
    assert world.status.run.result is result
    assert world.now + (world.decide().wake_after or timedelta()) == START + timedelta(minutes=1)
    assert checks(world) == []


def test_nothing_is_started_but_the_resolve_step() -> None:
    world = built()
    world.now = START + timedelta(minutes=1)
    (start,) = world.decide().before
    assert isinstance(start, StartResolve)
    assert start.role is Role.CHECK
    world.perform(start)
    (name,) = checks(world)
    assert world.pods[name]["spec"]["containers"][0]["args"] == ["resolve"]


def test_the_same_commit_starts_no_run_and_the_next_look_is_due_an_interval_later() -> None:
    world = built()
    before = world.status.run
    look(world)
    status = world.status
    assert status.run == before
    assert status.source
    assert (status.source.commit, status.source.checks, status.source.last_checked_at) == (world.head, 1, world.now)
    assert world.decide().wake_after == timedelta(minutes=1)
    assert ready(status)[0] == "True"


def test_a_pod_that_has_looked_goes_once_status_has_what_it_found() -> None:
    world = built()
    due(world)
    world.succeed_all(Role.CHECK)
    world.reconcile(killed_after=0)
    assert len(checks(world)) == 1
    world.reconcile()
    assert checks(world) == []


@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED, Result.CANCELLED])
def test_a_branch_that_has_moved_starts_a_run_of_just_that_commit(result: Result) -> None:
    world = built(result)
    first = world.status.run
    world.head = MOVED
    look(world)
    run = world.status.run
    assert first
    assert run
    assert run.source
    assert run.id != first.id
    assert (run.trigger, run.source.commit, run.source.author) == (Trigger.SOURCE_CHANGED, MOVED, "Ada")
    world.settle()
    assert not [
        pod for pod in world.pods.values() if pod_from(pod).role is Role.RESOLVE and pod_from(pod).run_id == run.id
    ]
    world.head = "c" * 40  # what the branch does then is of no concern to this run
    world.finish()
    assert {commit for _, commit in list(world.built.values())[-2:]} == {MOVED}


def test_a_tag_of_an_artifact_is_polled_as_a_branch_is() -> None:
    world = built(source=POLLED_TAG)
    first = world.status.run
    look(world)
    assert world.status.run == first
    assert world.status.source
    assert (world.status.source.commit, world.status.source.digest) == (None, digest_of(world.head))
    world.head = MOVED
    look(world)
    run = world.status.run
    assert run
    assert run.source
    assert first
    assert (run.id != first.id, run.trigger, run.source.digest) == (True, Trigger.SOURCE_CHANGED, digest_of(MOVED))
    world.settle()
    assert [pod_from(pod).role for pod in world.pods.values() if pod_from(pod).run_id == run.id] == [Role.BUILD] * 2


NOT_POLLED = {
    "a branch without interval": GIT,
    "a commit": {"git": {**POLLED["git"], "ref": "1" * 40}},
    "a tag without interval": {"oci": {"image": "registry.example.com/team-a/source:main"}},
    "a digest": {"oci": {**POLLED_TAG["oci"], "image": f"registry.example.com/team-a/source@{digest_of('x')}"}},
    "files": INLINE,
}


@pytest.mark.parametrize("source", NOT_POLLED.values(), ids=NOT_POLLED)
def test_what_does_not_move_or_is_not_asked_for_is_not_looked_at(source: Mapping[str, Any]) -> None:
    assert poll_interval(build(source=source).spec) is None


@pytest.mark.parametrize("source", [POLLED, POLLED_TAG], ids=["git", "oci"])
def test_what_has_an_interval_is_looked_at(source: Mapping[str, Any]) -> None:
    assert poll_interval(build(source=source).spec) == timedelta(minutes=1)


def test_a_run_that_was_killed_before_status_knew_of_it_never_takes_the_pods_of_another_commit() -> None:
    world = built()
    world.head = MOVED
    due(world)
    world.succeed_all(Role.CHECK)
    world.reconcile(killed_after=3)  # its ConfigMap and its builders exist
    orphans = {name for name, pod in world.pods.items() if pod_from(pod).role is Role.BUILD}
    for name in checks(world):
        del world.pods[name]
    world.head = "c" * 40
    world.settle()
    look(world)
    world.settle()
    assert world.status.run
    started = {entry.pod for entry in world.status.run.platforms}
    assert started.isdisjoint(orphans)


def test_while_a_run_goes_on_nobody_looks() -> None:
    world = built()
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    world.advance(600)
    world.settle()
    assert checks(world) == []


def test_after_a_run_that_took_longer_than_the_interval_the_first_look_is_at_once() -> None:
    world = built()
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    world.advance(600)
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        decision = world.settle()
    assert decision.status.run
    assert decision.status.run.result is Result.SUCCEEDED
    assert len(checks(world)) == 1


def test_a_look_that_fails_leaves_ready_what_it_is_and_says_so() -> None:
    world = built()
    due(world)
    world.fail(world.pod(Role.CHECK), Reason.GIT_UNREACHABLE, "no route")
    decision = world.reconcile()
    status = world.status
    assert status.source
    assert (status.source.reason, status.source.message) == (Reason.GIT_UNREACHABLE, "no route")
    assert ready(status)[0] == "True"
    assert ready(status)[1].endswith("the last look at the source failed: GitUnreachable: no route")
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "SourceCheckFailed")]
    due(world)
    world.fail(world.pod(Role.CHECK), Reason.GIT_UNREACHABLE, "no route")
    assert world.reconcile().events == (), "the same failure is not told again"
    look(world)
    assert world.status.source
    assert world.status.source.reason is None
    assert "failed" not in ready(world.status)[1]


def test_a_look_whose_pod_disappears_is_made_again_an_interval_later() -> None:
    world = built()
    due(world)
    world.pods.pop(checks(world)[0])
    world.settle()
    assert world.status.source
    assert world.status.source.reason is Reason.BUILDER_LOST
    assert checks(world) == []
    look(world)
    assert world.status.source.checks == 2


def test_a_look_that_fits_on_no_node_says_so() -> None:
    world = built()
    due(world)
    pod = world.pod(Role.CHECK)
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    ]
    world.settle()
    assert world.status.source
    assert (world.status.source.reason, world.status.source.message) == (Reason.UNSCHEDULABLE, "0/2 nodes")
    world.start(pod)
    world.settle()
    assert world.status.source.reason is None


@pytest.mark.parametrize("edit", [{"suspend": True}, {"source": {"git": {**POLLED["git"], "interval": None}}}])
def test_who_no_longer_wants_it_looked_at_has_no_pod_that_looks(edit: dict[str, Any]) -> None:
    world = built()
    before = world.status.run
    due(world)
    world.edit(**edit)
    world.settle()
    assert checks(world) == []
    assert world.decide().wake_after is None
    assert world.status.run == before


@pytest.mark.parametrize(("kind", "source"), [("git", POLLED), ("oci", POLLED_TAG)])
def test_the_interval_is_no_part_of_what_is_built(kind: str, source: Mapping[str, Any]) -> None:
    world = built(source=source)
    before = world.status.run
    world.edit(source={kind: {**source[kind], "interval": "1h"}})
    world.settle()
    assert world.status.run == before
    assert world.decide().wake_after == timedelta(hours=1) - timedelta(seconds=1)


def test_a_commit_that_is_found_while_no_run_may_start_is_built_when_one_may() -> None:
    world = built()
    before = world.status.run
    world.policy = Policy.model_validate({"concurrency": {"cluster": 1}})
    other = build("other").model_copy(update={"status": Status()})
    busy = [replace(summarize(other), uid="other", running=True)]
    due(world)
    world.head = MOVED
    world.succeed_all(Role.CHECK)
    for _ in range(3):
        world.reconcile(others=busy)
        world.advance(5)
    status = world.status
    assert status.run == before
    assert [condition.reason for condition in status.conditions][:1] == [Reason.QUEUED]
    assert len(checks(world)) == 1
    world.reconcile()
    run = world.status.run
    assert run
    assert run.source
    assert (run.trigger, run.source.commit) == (Trigger.SOURCE_CHANGED, MOVED)
    world.settle()
    assert checks(world) == []


def busy(count: int) -> list[BuildSummary]:
    """Return so many builds whose sources are being looked at."""
    empty = summarize(build())
    return [replace(empty, name=f"x{number}", uid=f"x{number}", polling=True) for number in range(count)]


@pytest.mark.parametrize("held", ["gated", "unschedulable", "unseen"])
def test_a_look_without_a_node_says_why_and_leaves_its_place_to_others(held: str) -> None:
    world = built()
    world.advance(60)
    world.settle()
    (name,) = checks(world)
    pod = world.pods[name]
    if held == "gated":
        pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    elif held == "unschedulable":
        why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
        pod["status"]["conditions"] = [why]
    world.settle()
    assert world.status.source is not None
    assert world.status.source.reason is {"gated": Reason.QUEUED, "unschedulable": Reason.UNSCHEDULABLE}.get(held)
    world.advance(299)
    world.settle()
    assert checks(world) == [name]
    world.advance(1)
    world.settle()
    assert checks(world) == []
    assert world.status.source.reason is Reason.SCHEDULING_TIMED_OUT
    assert world.status.source.message is not None
    assert f"pod {name} has got no node within 5 minutes" in world.status.source.message
    assert ready(world.status)[0] == "True"


def test_no_more_looks_go_on_than_the_policy_allows() -> None:
    world = built()
    world.policy = Policy.model_validate({"polling": {"concurrent": 2}})
    wake = world.decide().wake_after
    assert wake
    world.now += wake
    blocked = world.reconcile(others=busy(2))
    assert checks(world) == []
    assert blocked.status == world.reconcile(others=busy(2)).status, "nothing is written while it waits"
    assert blocked.wake_after is not None
    assert timedelta(seconds=5) <= blocked.wake_after < timedelta(seconds=15)
    world.settle(others=busy(1))
    assert len(checks(world)) == 1
    assert summarize(world.build).polling
    # It has its place: its own look counts for the others.
    world.settle(others=busy(2))
    assert len(checks(world)) == 1


def test_builds_that_wait_for_a_look_ask_again_at_different_times() -> None:
    waits = set()
    for number in range(20):
        world = built()
        world.resource["metadata"]["uid"] = f"uid-{number}"
        world.policy = Policy.model_validate({"polling": {"concurrent": 1}})
        world.advance(3600)
        waits.add(world.decide(others=busy(1)).wake_after)
    assert len(waits) > 5


def test_the_policy_names_the_shortest_interval() -> None:
    world = built()
    world.policy = Policy.model_validate({"polling": {"minInterval": "5m"}})
    world.advance(120)
    world.settle()
    assert checks(world) == []
    world.advance(180)
    world.settle()
    assert len(checks(world)) == 1
