"""What went wrong on the way to success stays in status."""

import pytest

from multiarchbuild.api import limits
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import MAX_BYTES, Result
from multiarchbuild.plan.children import Role
from tests.unit.plan.world import GIT, World, spec


def test_a_run_that_needed_more_than_one_try_says_why() -> None:
    world = World()
    world.settle()
    first = world.pod(platform="linux/arm64")
    world.schedule(first, "node-arm64")
    world.fail(first, Reason.BUILDER_LOST, "the node went away")
    world.settle()
    world.advance(5)
    world.settle()
    world.succeed_all(Role.BUILD)
    world.settle()
    world.fail(world.pod(Role.PUBLISH), Reason.REGISTRY_ERROR, "503")
    world.settle()
    world.advance(5)
    world.settle()
    world.succeed_all(Role.PUBLISH)
    world.settle()
    run = world.status.run
    assert run
    assert run.result is Result.SUCCEEDED
    amd64, arm64 = run.platforms
    assert amd64.failed_attempts == ()
    (tried,) = arm64.failed_attempts
    assert (tried.attempt, tried.reason, tried.message, tried.node) == (
        1,
        Reason.BUILDER_LOST,
        "the node went away",
        "node-arm64",
    )
    assert arm64.attempt == 2
    assert run.publish
    assert [each.reason for each in run.publish.failed_attempts] == [Reason.REGISTRY_ERROR]
    assert "(linux/arm64 after BuilderLost; publish after RegistryError)" in (run.message or "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_try_that_a_killed_operator_has_started_is_a_try(*, fails: bool) -> None:
    world = World()
    world.edit(platforms=["linux/amd64"])
    world.settle()
    world.fail(world.pod(), Reason.REGISTRY_ERROR, "503")
    world.settle()
    world.advance(5)
    world.reconcile(killed_after=1)
    world.start(world.pod(attempt=2))
    world.settle()
    run = world.status.run
    assert run
    assert [(each.attempt, each.reason, each.message) for each in run.platforms] == [(2, Reason.BUILDING, None)]
    if fails:
        world.fail(world.pod(attempt=2), Reason.REGISTRY_ERROR, "503")
        world.settle()
        world.advance(20)
        world.settle()
    assert world.finish().platforms[0].attempt == 2 + fails


@pytest.mark.parametrize("source", [GIT, spec()["source"]])
def test_only_the_last_tries_are_kept(source: dict[str, object]) -> None:
    world = World()
    world.edit(source=source, retries=10, platforms=["linux/amd64"])
    world.settle()
    for _ in range(6):
        world.fail(world.pod(), Reason.REGISTRY_ERROR, "x" * 2000)
        world.settle()
        world.advance(60)
        world.settle()
    run = world.status.run
    assert run
    (entry,) = run.platforms
    assert [each.attempt for each in entry.failed_attempts] == [4, 5, 6]
    assert all(len(each.message) == limits.FAILED_ATTEMPT for each in entry.failed_attempts)


def test_status_has_room_for_all_of_them() -> None:
    platforms = ["linux/amd64", "linux/arm64", "linux/386", "linux/riscv64", "linux/s390x", "linux/ppc64le"]
    platforms += ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4"]
    world = World()
    world.edit(platforms=platforms, retries=10, scheduling={"nativeWait": "0s"})
    world.settle()
    for _ in range(4):
        for name in platforms:
            world.fail(world.pod(platform=name), Reason.REGISTRY_ERROR, "\N{PILE OF POO}" * 2000, '"' * 4096)
        world.settle()
        world.advance(60)
        world.settle()
    assert len(world.status.model_dump_json(by_alias=True, exclude_none=True).encode()) < MAX_BYTES
