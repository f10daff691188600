"""A builder's pod that waits for a node: what takes its place, and when it has waited for too long."""

from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import PlatformStatus, Result, RunStatus
from multiarchbuild.plan.children import pod_from
from tests.unit.plan.world import World, manifest, node, timestamp

ARM64 = "linux/arm64"


def world(**fields: Any) -> World:
    """Return a cluster with one new build."""
    return World(manifest(**fields))


def run_of(world: World) -> RunStatus:
    """Return the run in status."""
    assert world.status.run is not None
    return world.status.run


def entry(world: World) -> PlatformStatus:
    """Return the only platform of the run in status."""
    (found,) = run_of(world).platforms
    return found


AARCH32 = {"multiarch.build/aarch32": "true"}
QEMU = {"multiarch.build/qemu-arm64": "true"}
MOVES: dict[
    str, tuple[str, dict[str, Any], list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]], str]
] = {
    "another kind of native node joins": (
        "linux/arm/v7",
        {"strategy": "Native"},
        [],
        [("arm", {})],
        "Native on-arm",
    ),
    "a likelier kind of native node joins": (
        "linux/arm/v7",
        {"strategy": "Native"},
        [("arm", {})],
        [("arm", {}), ("arm64", AARCH32)],
        "Native",
    ),
    "the node with QEMU goes, BuildKit's own will do": (
        ARM64,
        {"strategy": "Emulated"},
        [("amd64", QEMU)],
        [("amd64", {})],
        "Emulated qemu-bundled",
    ),
    "a node with QEMU joins": (
        ARM64,
        {"strategy": "Emulated"},
        [("amd64", {})],
        [("amd64", {}), ("s390x", QEMU)],
        "Emulated qemu",
    ),
    "a native node joins while the pod waits for room on one with QEMU": (
        ARM64,
        {"nativeWait": "0s"},
        [("amd64", QEMU)],
        [("amd64", QEMU), ("arm64", {})],
        "Native",
    ),
}


@pytest.mark.parametrize(("platform", "scheduling", "before", "after", "wanted"), MOVES.values(), ids=MOVES)
def test_a_pod_that_waits_gives_way_to_one_for_the_nodes_of_now(
    platform: str,
    scheduling: dict[str, Any],
    before: list[tuple[str, dict[str, str]]],
    after: list[tuple[str, dict[str, str]]],
    wanted: str,
) -> None:
    w = world(platforms=[platform], scheduling=scheduling)
    w.nodes = tuple(node(architecture, labels=labels) for architecture, labels in before)
    w.settle()
    first = entry(w).pod
    w.nodes = tuple(node(architecture, labels=labels) for architecture, labels in after)
    w.settle()
    (pod,) = w.pods.values()
    seen = pod_from(pod)
    assert f"{seen.mode} {seen.placement}".strip() == wanted
    assert seen.name not in (first, None)
    assert (entry(w).pod, entry(w).attempt) == (seen.name, 1), "it is no further attempt"
    w.start(pod)
    w.nodes = ()
    w.settle()
    assert list(w.pods) == [seen.name], "what runs is never moved"


def test_a_pod_of_the_same_second_that_is_being_deleted_is_not_the_one_that_counts() -> None:
    w = world(platforms=["linux/arm/v7"], scheduling={"strategy": "Native"})
    w.nodes = (node("arm"),)
    w.settle()
    w.nodes = (node("arm64", labels=AARCH32),)
    old = w.pod()
    w.reconcile(killed_after=3)  # the pod's creation and status, not the deletion
    old["metadata"]["deletionTimestamp"] = timestamp(w.now)
    w.settle()
    assert entry(w).reason is Reason.PENDING
    assert entry(w).pod != old["metadata"]["name"]


def test_a_pod_that_gets_no_node_in_time_is_tried_again_and_then_fails() -> None:
    w = world(platforms=[ARM64], retries=1, scheduling={"strategy": "Native", "pendingTimeout": "90s"})
    w.nodes = (node("amd64"),)
    assert w.settle().wake_after == timedelta(seconds=90)
    w.advance(90)
    w.settle()
    assert entry(w).reason is Reason.RETRYING
    assert "no node within 90s (scheduling.pendingTimeout): no Ready, schedulable node" in (entry(w).message or "")
    assert w.pods == {}, "it must not start any more"
    w.advance(5)
    w.settle()
    assert entry(w).attempt == 2
    w.advance(90)
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.SCHEDULING_TIMED_OUT)
    assert w.pods == {}


def test_a_pod_that_has_a_node_is_in_time() -> None:
    w = world(platforms=[ARM64], scheduling={"pendingTimeout": "90s"})
    w.settle()
    w.schedule(w.pod(), "node-arm64")
    w.advance(91)
    w.settle()
    assert entry(w).reason is Reason.PENDING


def test_what_no_node_can_do_is_never_started() -> None:
    w = world(platforms=[ARM64], scheduling={"strategy": "Native", "nodeSelector": {"kubernetes.io/arch": "amd64"}})
    decision = w.settle()
    assert (decision.before, w.pods, w.status.run) == ((), {}, None)
    reasons = {condition.type: (condition.status, condition.reason) for condition in w.status.conditions}
    assert reasons == {"Ready": ("False", "InvalidSpec"), "Stalled": ("True", "InvalidSpec")}
    w.edit(scheduling={})
    w.settle()
    assert w.pods
