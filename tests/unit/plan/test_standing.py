"""What status says of a run whose platforms stand at different points, and of one that ends before they all have."""

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.status import Phase, PlatformStatus, Result
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
from tests.unit.plan.world import GIT, START, World, node, timestamp


def test_a_source_that_can_not_be_resolved_stops_the_builders_that_wait_for_it() -> None:
    world = World()
    world.edit(source=GIT)
    world.settle()
    for platform in ("linux/amd64", "linux/arm64"):
        world.start(world.pod(platform=platform))
    world.settle()
    assert [entry.phase for entry in _platforms(world)] == [Phase.RUNNING] * 2
    world.fail(world.pod(Role.RESOLVE), Reason.GIT_REF_NOT_FOUND, "no such branch")
    decision = world.settle()
    assert [(entry.phase, entry.reason, entry.message) for entry in _platforms(world)] == [
        (Phase.STOPPED, Reason.GIT_REF_NOT_FOUND, None)
    ] * 2
    assert not decision.events, "the end of the run says it all"
    assert not [name for name in world.pods if "resolve" not in name], "builders are let go"


def test_cancelling_keeps_what_is_built_and_stops_the_rest() -> None:
    world = World()
    world.settle()
    world.succeed(world.pod(platform="linux/amd64"))
    world.settle()
    run = world.status.run
    assert run is not None
    world.annotate(CANCEL_ANNOTATION, run.id)
    world.settle()
    amd64, arm64 = _platforms(world)
    assert amd64.phase is Phase.SUCCEEDED
    assert (arm64.phase, arm64.reason) == (Phase.STOPPED, Reason.CANCELLED)


def test_the_message_of_a_run_says_once_why_a_platform_is_not_built() -> None:
    world = World()
    world.edit(timeout="5m")
    world.settle()
    world.succeed(world.pod(platform="linux/amd64"))
    world.schedule(world.pod(platform="linux/arm64"))["status"]["startTime"] = timestamp(START)
    world.settle()
    run = world.status.run
    assert run is not None
    assert run.message == "1/2 platforms built; linux/arm64 Pending: starting the builder"
    world.advance(301)
    world.settle()
    run = world.status.run
    assert run is not None
    assert run.result is Result.FAILED
    assert run.message == (
        "the run took longer than spec.timeout (5m): 1/2 platforms built; linux/arm64 Pending: starting the builder"
    )
    assert _platforms(world)[1].reason is Reason.TIMED_OUT


def test_a_platform_that_failed_is_why_a_run_failed_whose_time_is_over() -> None:
    world = World()
    world.edit(timeout="5m")
    world.settle()
    world.start(world.pod(platform="linux/arm64"))
    # Nobody has looked before the time was over.
    world.fail(world.pod(platform="linux/amd64"), Reason.BUILD_FAILED, "RUN make failed")
    world.advance(301)
    world.settle()
    run = world.status.run
    assert run is not None
    assert (run.result, run.reason) == (Result.FAILED, Reason.BUILD_FAILED)
    assert run.message == (
        "linux/amd64: RUN make failed; others were stopped: the run took longer than spec.timeout (5m)"
    )
    assert [(entry.phase, entry.reason) for entry in _platforms(world)] == [
        (Phase.FAILED, Reason.BUILD_FAILED),
        (Phase.STOPPED, Reason.TIMED_OUT),
    ]


def test_why_a_platform_failed_is_told_by_one_event() -> None:
    world = World()
    world.settle()
    world.succeed(world.pod(platform="linux/amd64"))
    world.fail(world.pod(platform="linux/arm64"), Reason.BUILD_FAILED, "RUN make failed")
    events = [event for event in world.reconcile().events if event.reason == Reason.BUILD_FAILED]
    run = world.status.run
    assert run is not None
    assert [event.message for event in events] == [
        "linux/arm64: RUN make failed",
        f"run {run.id} failed for linux/arm64; no tag was moved",
    ]


def test_the_reason_is_what_is_waited_for_while_nothing_is_built() -> None:
    world = World(nodes=(node("amd64"),), policy=Policy.model_validate({"emulation": {"allowed": False}}))
    world.edit(scheduling={"nativeWait": "0s"})
    world.settle()
    assert _reason(world) is Reason.NO_BUILDER, "the gravest: one platform would start soon"
    world.start(world.pod(platform="linux/amd64"))
    world.settle()
    assert _reason(world) is Reason.BUILDING
    world.fail(world.pod(platform="linux/amd64"), Reason.REGISTRY_ERROR)
    world.nodes = (node("amd64"), node("arm64"))
    world.settle()
    assert _reason(world) is Reason.RETRYING


def _reason(world: World) -> Reason | None:
    run = world.status.run
    assert run is not None
    return run.reason


def _platforms(world: World) -> list[PlatformStatus]:
    run = world.status.run
    assert run is not None
    return list(run.platforms)
