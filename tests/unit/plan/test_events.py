"""Events: one for each transition worth knowing, and none twice."""

from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.plan.actions import EventRecord
from multiarchbuild.plan.children import Role
from tests.unit.plan.world import GIT, World, manifest, node

AMD64, ARM64 = "linux/amd64", "linux/arm64"
Told = list[tuple[str, str]]


def world(**fields: Any) -> World:
    """Return a cluster with one new build."""
    return World(manifest(**fields))


def told(w: World) -> list[EventRecord]:
    """Reconcile until nothing changes and return the Events."""
    events: list[EventRecord] = []
    for _ in range(9):
        if not (decided := w.reconcile().events):
            return events
        events += decided
    raise AssertionError(f"it never comes to rest: {events[-1]}")


def short(events: list[EventRecord]) -> Told:
    """Return type and reason of each."""
    return [(event.type, event.reason) for event in events]


def test_the_events_of_a_run_that_succeeds() -> None:
    w = world(source=GIT)
    assert short(told(w)) == [("Normal", "RunStarted")]
    w.succeed_all(Role.RESOLVE)
    assert told(w) == []
    for pod in w.pods.values():
        if pod["status"]["phase"] == "Pending":
            w.start(pod)
    assert told(w) == [], "status says what goes on"
    w.succeed(w.pod(platform=AMD64))
    assert told(w) == []
    w.succeed(w.pod(platform=ARM64))
    assert told(w) == []
    w.succeed_all(Role.PUBLISH)
    assert short(told(w)) == [("Normal", "Succeeded")]


def test_events_say_what_where_and_which() -> None:
    w = world(source=GIT)
    messages = [event.message for event in told(w)]
    assert w.status.run is not None
    assert messages == [f"run {w.status.run.id} (SpecChanged) for {AMD64}, {ARM64}"]
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        w.succeed_all(role)
        messages = [event.message for event in told(w)]
    assert messages == [f"{w.status.run.message}, of main at {w.head}"]


def test_the_events_of_a_run_that_fails() -> None:
    w = world()
    told(w)
    w.fail(w.pod(platform=ARM64), Reason.BUILD_FAILED, "RUN false failed")
    (event,) = told(w)
    assert (event.type, event.reason, event.message) == ("Warning", "BuildFailed", f"{ARM64}: RUN false failed")
    w.succeed(w.pod(platform=AMD64))
    events = told(w)
    assert short(events) == [("Warning", "BuildFailed")]
    assert events[-1].key.endswith("/ended")


def test_each_try_has_its_own_events() -> None:
    w = world(platforms=[AMD64])
    keys = [event.key for event in told(w)]
    for _ in range(2):
        w.evict(w.pod())
        events = told(w)
        assert short(events) == [("Warning", "Retrying")]
        keys += [event.key for event in events]
        w.advance(10)
        told(w)
    assert len(set(keys)) == len(keys)


NODES: dict[str, tuple[tuple[Any, ...], dict[str, Any], Told]] = {
    "native": ((node("arm64"),), {}, [("Normal", "RunStarted")]),
    "waits": (
        (node("amd64"),),
        {"nativeWait": "1m"},
        [("Normal", "RunStarted"), ("Warning", "WaitingForNativeNode")],
    ),
    "falls back to QEMU": (
        (node("amd64"),),
        {"nativeWait": "0s"},
        [("Normal", "RunStarted"), ("Warning", "Emulated")],
    ),
    "emulated as asked": (
        (node("amd64"),),
        {"strategy": "Emulated"},
        [("Normal", "RunStarted"), ("Warning", "Emulated")],
    ),
    "fits nowhere": ((), {"strategy": "Native"}, [("Normal", "RunStarted"), ("Warning", "NoBuilder")]),
}


@pytest.mark.parametrize(("nodes", "scheduling", "events"), NODES.values(), ids=NODES)
def test_where_a_platform_goes_is_never_silent(
    nodes: tuple[Any, ...], scheduling: dict[str, Any], events: Told
) -> None:
    w = world(platforms=[ARM64], scheduling=scheduling)
    w.nodes = nodes
    assert short(told(w)) == events


def test_a_fallback_after_waiting_is_told_with_its_reason() -> None:
    w = world(platforms=[ARM64], scheduling={"nativeWait": "1m"})
    w.nodes = (node("amd64"),)
    told(w)
    w.advance(60)
    (event,) = told(w)
    assert event.reason == "Emulated"
    assert event.message == (
        f"{ARM64} is built under QEMU: no Ready, schedulable node with kubernetes.io/arch=arm64: using QEMU"
    )


def test_a_full_cluster_is_told() -> None:
    w = world(platforms=[ARM64])
    told(w)
    w.pod()["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    ]
    (event,) = told(w)
    assert (event.reason, event.message) == ("Unschedulable", f"{ARM64}: 0/2 nodes")


def test_a_message_that_changes_is_no_event() -> None:
    w = world(platforms=[ARM64])
    w.pods.clear()
    told(w)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    w.pod()["status"]["conditions"] = [condition]
    told(w)
    condition["message"] = "0/3 nodes"
    assert told(w) == []


def test_superseded() -> None:
    w = world()
    told(w)
    before = w.status.run
    w.edit(build={"args": {"A": "1"}})
    events = told(w)
    after = w.status.run
    assert before is not None
    assert after is not None
    assert short(events) == [("Normal", "Superseded"), ("Normal", "RunStarted")]
    assert events[0].message == f"run {before.id} is superseded by {after.id}"


def test_cancelled() -> None:
    w = world()
    told(w)
    assert w.status.run is not None
    w.annotate(CANCEL_ANNOTATION, w.status.run.id)
    assert short(told(w)) == [("Warning", "Cancelled")]


def test_an_annotation_that_has_done_its_work_is_no_mistake_once_its_run_is_forgotten() -> None:
    w = world(history={"successful": 0, "failed": 0})
    told(w)
    assert w.status.run is not None
    w.annotate(CANCEL_ANNOTATION, w.status.run.id)
    told(w)
    w.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    told(w)
    assert w.status.history == ()
    assert told(w) == []


@pytest.mark.parametrize("key", [REBUILD_ANNOTATION, CANCEL_ANNOTATION])
def test_an_annotation_that_makes_no_sense_is_told_with_what_to_write(key: str) -> None:
    w = world()
    told(w)
    w.annotate(key, "x" * 300)
    (event,) = w.reconcile().events
    assert (event.type, event.reason) == ("Warning", "InvalidAnnotation")
    assert key in event.message
    assert "ignored: write" in event.message
    assert len(event.message) < 300
    (repeated,) = w.reconcile().events
    assert repeated.key == event.key, "the API server knows it already"
    w.annotate(key, "y")
    (other,) = w.reconcile().events
    assert other.key != event.key
