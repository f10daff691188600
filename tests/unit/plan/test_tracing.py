"""The trace of a run: which parts it has, and how they hang together."""

import pytest
from pydantic import ValidationError

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Status
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.tracing import Span, Tracing
from multiarchbuild.plan.tracing import ended as ended_spans
from tests.unit.plan.world import GIT, World

TRACED = Policy(tracing=Tracing(endpoint="http://collector.example.com:4318/"))


def told(world: World, before: Status) -> tuple[Span, ...]:
    """Return what is told when the status was `before`."""
    pods = [world.observed(pod) for pod in world.pods.values()]
    return ended_spans(world.build, before, world.status, pods, world.now)


def ended(world: World, *, fails: bool = False) -> tuple[Span, ...]:
    """Let the run end and return its trace."""
    world.settle()
    world.succeed_all(Role.RESOLVE)
    world.settle()
    if fails:
        world.fail(world.pod(platform="linux/arm64"), Reason.BUILD_FAILED, "exit code 1")
    world.succeed_all(Role.BUILD)
    world.settle()
    if not fails:
        world.succeed_all(Role.PUBLISH)
        world.settle()
    return told(world, Status())


def test_nothing_is_told_of_a_run_that_is_not_traced() -> None:
    world = World()
    assert ended(world) == ()
    assert world.status.run
    assert world.status.run.trace_id is None


def test_each_part_of_a_run_is_below_it() -> None:
    world = World(policy=TRACED)
    world.edit(source=GIT)
    found = ended(world)
    root = found[0]
    assert world.status.run
    assert root.trace == world.status.run.trace_id
    assert (root.name, root.parent, root.error) == ("run team-a/app", "", "")
    names = [span.name for span in found if span.parent == root.id]
    assert names == ["build linux/amd64", "build linux/arm64", "resolve", "publish"]
    assert len({span.id for span in found}) == len(found), "ids are of one span each"
    known = {span.id for span in found}
    assert all(span.parent in known for span in found[1:])
    assert all(span.start <= span.end for span in found)
    assert root.attributes["multiarchbuild.result"] == "Succeeded"


def test_a_platform_that_the_spec_writes_in_another_way_has_a_part_too() -> None:
    world = World(policy=TRACED)
    world.edit(platforms=["linux/amd64", "linux/arm64/v8"])
    assert {"build linux/amd64", "build linux/arm64"} <= {span.name for span in ended(world)}


def test_what_failed_says_why() -> None:
    found = {span.name: span for span in ended(World(policy=TRACED), fails=True)}
    assert found["build linux/arm64"].error == "BuildFailed: exit code 1"
    assert found["build linux/amd64"].error == ""
    assert found["run team-a/app"].error.startswith("BuildFailed: ")


def test_a_run_whose_place_another_takes_is_told_too() -> None:
    world = World(policy=TRACED)
    world.settle()
    before = world.status
    world.edit(platforms=["linux/amd64"])
    world.settle()
    root, *_ = told(world, before)
    assert before.run
    assert root.trace == before.run.trace_id
    assert root.error.startswith("Superseded: ")
    assert told(world, world.status) == ()


def test_the_endpoint_is_a_url() -> None:
    assert Tracing(endpoint="http://c:4318/v1/traces").url == "http://c:4318/v1/traces"
    assert TRACED.tracing.url == "http://collector.example.com:4318/v1/traces"
    with pytest.raises(ValidationError):
        Tracing(endpoint="collector:4317")
    assert not Policy().tracing.enabled
