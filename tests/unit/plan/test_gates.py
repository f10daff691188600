"""Pods in somebody else's queue: Kueue and others hold them back with scheduling gates."""

from datetime import timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Phase
from multiarchbuild.plan.build_summary import summarize
from multiarchbuild.plan.children import Role
from tests.unit.plan.world import GIT, World, kstatus, manifest, node

GATE = "kueue.x-k8s.io/admission"


def gated(world: World, role: Role = Role.BUILD) -> None:
    for pod in world.pods.values():
        if pod["metadata"]["labels"]["multiarch.build/role"] == role:
            pod["spec"]["schedulingGates"] = [{"name": GATE}]


def test_a_pod_that_is_held_back_is_queued_and_goes_on_when_it_is_let_go() -> None:
    world = World(manifest(platforms=["linux/amd64"], scheduling={"pendingTimeout": "1m"}))
    world.settle()
    gated(world)
    world.advance(600)
    world.settle()
    run = world.status.run
    assert run is not None
    (entry,) = run.platforms
    assert (entry.phase, entry.reason, entry.attempt) == (Phase.PENDING, Reason.QUEUED, 1)
    assert entry.message == f"pod {entry.pod} is held back by {GATE} (schedulingGates)"
    ready = next(condition for condition in world.status.conditions if condition.type == "Ready")
    assert (ready.status, ready.reason) == ("Unknown", Reason.QUEUED)
    assert kstatus(world.status, 1) == "InProgress"
    pod = world.pod()
    del pod["spec"]["schedulingGates"]
    world.start(pod)
    world.settle()
    assert world.status.run
    assert world.status.run.platforms[0].reason is Reason.BUILDING


def test_it_keeps_its_place_there_whatever_nodes_do() -> None:
    world = World(nodes=(node("amd64"), node("arm64")))
    world.settle()
    gated(world)
    names = set(world.pods)
    world.nodes = (node("amd64"),)
    world.advance(3000)
    world.settle()
    assert set(world.pods) == names


def test_a_step_that_is_held_back_is_queued_too() -> None:
    world = World(manifest(source=GIT))
    world.settle()
    gated(world, Role.RESOLVE)
    world.settle()
    assert world.status.run
    assert world.status.run.resolve
    assert world.status.run.resolve.reason is Reason.QUEUED


def test_a_run_whose_pods_are_queued_elsewhere_has_its_turn() -> None:
    world = World()
    world.settle()
    gated(world)
    world.settle()
    seen = summarize(world.build)
    assert (seen.running, seen.waiting_since) == (True, None)
    assert world.decide().wake_after is not None
    assert timedelta() < (world.decide().wake_after or timedelta())
