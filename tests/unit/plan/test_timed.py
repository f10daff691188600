"""Runs that time starts, and the window that others wait for."""

from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.status import Trigger
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import Policy, RebuildPolicy
from tests.unit.plan.test_base_images import run_of
from tests.unit.plan.test_parents import ready
from tests.unit.plan.test_polling import MOVED, built, checks
from tests.unit.plan.world import FLUX, FROM_BASE, POLLED, World, base, kstatus, manifest

NIGHT = {"start": "22:00", "duration": "2h"}
"""It is noon when builds are made."""
HOUR = timedelta(hours=1)


def made(rebuild: dict[str, Any], **fields: Any) -> World:
    world = World(manifest(rebuild=rebuild, **fields), policy=Policy(rebuild=RebuildPolicy(jitter="0s")))
    world.others = [base("1")]
    world.settle()
    return world


def lose(world: World, reason: Reason = Reason.REGISTRY_UNREACHABLE) -> None:
    """Let the run fail."""
    for pod in list(world.pods.values()):
        if pod_from(pod).role is Role.BUILD and pod_from(pod).ended is None:
            world.fail(pod, reason)
    world.settle()


def wait(world: World) -> timedelta:
    """Let time pass until something is to be done; return how long that was."""
    wake = world.decide().wake_after
    assert wake
    world.now += wake
    world.settle()
    return wake


def test_a_schedule_starts_a_run_in_any_case() -> None:
    world = made({"schedule": "0 3 * * *"})
    world.finish()
    first = run_of(world)
    assert wait(world) == 15 * HOUR
    run = run_of(world)
    assert (run.id != first.id, run.trigger) == (True, Trigger.SCHEDULED)
    assert run.cause == "rebuild.schedule is 0 3 * * *"
    world.finish()
    assert wait(world) == 24 * HOUR


def test_what_was_missed_is_made_up_for_once() -> None:
    world = made({"schedule": "0 3 * * *"})
    world.finish()
    world.advance(5 * 24 * 3600)
    world.settle()
    assert run_of(world).trigger is Trigger.SCHEDULED
    world.finish()
    assert world.decide().wake_after == 15 * HOUR


def test_a_run_that_ends_when_the_next_is_due_is_followed_by_it_at_once() -> None:
    world = made({"schedule": "30 * * * *"})
    world.advance(3700)
    decision = world.reconcile()
    assert run_of(world).reason is Reason.TIMED_OUT
    assert decision.wake_after == timedelta()
    world.reconcile()
    assert run_of(world).trigger is Trigger.SCHEDULED


def test_a_run_that_failed_for_its_infrastructure_is_followed_by_others_later_and_later() -> None:
    world = made({"retryInterval": "30m"}, retries=0, platforms=["linux/amd64"])
    waits = []
    for retry in range(1, 8):
        lose(world)
        status = world.status
        assert ready(status)[:2] == ("False", "RegistryUnreachable")
        assert "another run starts at 2026-" in ready(status)[2]
        assert kstatus(status, 1) == "InProgress"
        waits.append(wait(world) / timedelta(minutes=30))
        assert (run_of(world).trigger, run_of(world).retry) == (Trigger.RETRIED, retry)
    assert waits == [1, 2, 4, 8, 16, 32, 48]
    world.finish()
    assert ready(world.status)[0] == "True"


def test_it_goes_on_with_what_was_built() -> None:
    world = made({"retryInterval": "30m"}, retries=0)
    world.succeed(world.pod(Role.BUILD, "linux/amd64"))
    lose(world)
    wait(world)
    run = run_of(world)
    assert [entry.phase for entry in run.platforms] == ["Succeeded", "Pending"]


@pytest.mark.parametrize("reason", [Reason.BUILD_FAILED, Reason.SECRET_INVALID])
def test_what_somebody_has_to_mend_is_not_tried_again(reason: Reason) -> None:
    world = made({"retryInterval": "30m"}, retries=0)
    lose(world, reason)
    assert world.decide().wake_after is None
    assert kstatus(world.status, 1) == "Failed"


def test_a_parent_is_followed_in_the_window() -> None:
    world = made({"window": NIGHT}, build=FROM_BASE)
    world.finish()
    first = run_of(world)
    world.others = [base("2")]
    world.settle()
    assert run_of(world).id == first.id
    assert wait(world) == 10 * HOUR
    assert run_of(world).trigger is Trigger.PARENT_PUBLISHED


def test_a_branch_is_looked_at_in_the_window_and_whenever_somebody_asks() -> None:
    world = built(source=POLLED)
    world.edit(rebuild={"window": NIGHT})
    world.head = MOVED
    world.settle()
    assert checks(world) == []
    assert (world.decide().wake_after or timedelta()) > 9 * HOUR
    world.annotate(FLUX_RECONCILE_ANNOTATION, "now")
    world.settle()
    world.succeed_all(Role.CHECK)
    world.settle()
    assert run_of(world).trigger is Trigger.SOURCE_CHANGED


def test_a_revision_of_flux_waits_for_the_window_and_a_request_does_not() -> None:
    world = made({"window": NIGHT}, source=FLUX)
    world.finish()
    world.head = MOVED
    world.settle()
    assert run_of(world).trigger is Trigger.SPEC_CHANGED
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    assert run_of(world).trigger is Trigger.REQUESTED
    world.finish()
    world.head = "c" * 40
    world.settle()
    assert run_of(world).trigger is Trigger.REQUESTED
    wait(world)
    assert (run_of(world).trigger, world.now.hour) == (Trigger.SOURCE_CHANGED, 22)


def test_many_builds_of_one_schedule_start_one_after_the_other() -> None:
    spread = {RebuildPolicy().spread(str(uid), 24 * HOUR) for uid in range(200)}
    assert max(spread) <= timedelta(minutes=30)
    assert len(spread) > 100
