"""Pods in somebody else's queue: Kueue and others hold them back with scheduling gates."""

from datetime import timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Phase
from multiarchbuild.plan.build_summary import summarize
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
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


def let_go(world: World) -> None:
    for pod in world.pods.values():
        pod["spec"].pop("schedulingGates", None)


def test_the_time_that_it_may_wait_for_a_node_begins_when_it_is_let_go() -> None:
    world = World(manifest(platforms=["linux/amd64"], scheduling={"pendingTimeout": "1m"}))
    world.settle()
    gated(world)
    world.advance(600)
    world.settle()
    let_go(world)
    decision = world.settle()
    assert world.status.run
    (entry,) = world.status.run.platforms
    assert (entry.reason, entry.attempt, entry.dequeued_at) == (Reason.PENDING, 1, world.now)
    assert decision.wake_after == timedelta(minutes=1)
    world.advance(60)
    world.settle()
    assert world.status.run.platforms[0].failed_attempts[0].reason is Reason.SCHEDULING_TIMED_OUT


def test_an_autoscaler_has_its_time_when_the_pod_is_let_go_and_qemu_comes_then() -> None:
    world = World(manifest(platforms=["linux/arm64"], scheduling={"nativeWait": "2m"}), nodes=(node("amd64"),))
    world.settle()
    gated(world)
    world.advance(600)
    world.settle()
    (native,) = world.pods
    let_go(world)
    decision = world.settle()
    assert set(world.pods) == {native}
    assert world.status.run
    assert world.status.run.platforms[0].reason is Reason.WAITING_FOR_NATIVE_NODE
    assert decision.wake_after == timedelta(minutes=2)
    world.advance(120)
    world.settle()
    (emulated,) = world.pods
    assert emulated != native
    # It is queued once more, and stays the one with QEMU.
    gated(world)
    world.advance(600)
    world.settle()
    let_go(world)
    world.settle()
    assert set(world.pods) == {emulated}


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


QUEUES = {"podMetadata": {"labels": {"kueue.x-k8s.io/queue-name": "builds"}}}


def test_where_all_pods_are_queued_no_builder_holds_the_room_that_its_source_waits_for() -> None:
    world = World(manifest(source=GIT), policy=Policy.model_validate(QUEUES))
    world.settle()
    assert roles(world) == {Role.RESOLVE}
    world.succeed(world.pod(Role.RESOLVE))
    world.settle()
    assert roles(world) == {Role.RESOLVE, Role.BUILD}


def test_the_next_try_of_a_builder_waits_for_a_source_that_is_queued() -> None:
    world = World(manifest(platforms=["linux/amd64"], source=GIT))
    world.settle()
    gated(world, Role.RESOLVE)
    world.evict(world.pod())
    world.settle()
    world.advance(60)
    world.settle()
    assert world.status.run
    assert world.status.run.platforms[0].attempt == 1
    let_go(world)
    world.settle()
    assert world.status.run.platforms[0].attempt == 2


def roles(world: World) -> set[str]:
    return {pod["metadata"]["labels"]["multiarch.build/role"] for pod in world.pods.values()}


def test_a_run_whose_pods_are_queued_elsewhere_has_its_turn() -> None:
    world = World()
    world.settle()
    gated(world)
    world.settle()
    seen = summarize(world.build)
    assert (seen.running, seen.waiting_since) == (True, None)
    assert world.decide().wake_after is not None
    assert timedelta() < (world.decide().wake_after or timedelta())


def test_a_native_node_is_waited_for_from_when_a_builder_is_there_though_its_source_was_queued_for_longer() -> None:
    resource = manifest(platforms=["linux/arm64"], source=GIT, scheduling={"nativeWait": "2m"})
    world = World(resource, (node("amd64"),), Policy.model_validate(QUEUES))
    world.settle()
    gated(world, Role.RESOLVE)
    world.advance(600)
    world.settle()
    let_go(world)
    world.succeed(world.pod(Role.RESOLVE))
    world.settle()
    assert world.status.run
    assert world.status.run.platforms[0].reason is Reason.WAITING_FOR_NATIVE_NODE
