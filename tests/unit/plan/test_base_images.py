"""A base image whose tag has moved starts one run."""

from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION
from multiarchbuild.api.status import BaseImagesCheck, ImageStatus, RunStatus, Trigger
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import Policy, RebuildPolicy
from tests.unit.plan.test_parents import end, ready
from tests.unit.plan.world import BASE, ON_BASE, World, digest_of, manifest

HOUR = timedelta(hours=1)


def made(policy: RebuildPolicy | None = None, rebuild: dict[str, Any] = ON_BASE) -> World:
    """Return a world whose build has an image."""
    world = World(manifest(rebuild=rebuild), policy=Policy(rebuild=policy or RebuildPolicy(jitter="0s")))
    world.settle()
    end(world)
    assert world.status.image
    return world


def looks(world: World) -> list[str]:
    return [name for name, pod in world.pods.items() if pod_from(pod).role is Role.CHECK_BASES]


def wait(world: World) -> None:
    """Let time pass until something is to be done."""
    wake = world.decide().wake_after
    assert wake
    world.now += wake
    world.settle()


def look(world: World) -> None:
    wait(world)
    assert len(looks(world)) == 1
    world.succeed_all(Role.CHECK_BASES)
    world.settle()


def run_of(world: World) -> RunStatus:
    assert world.status.run
    return world.status.run


def image_of(world: World) -> ImageStatus:
    assert world.status.image
    return world.status.image


def status_of(world: World) -> BaseImagesCheck:
    assert world.status.base_images
    return world.status.base_images


def test_the_image_knows_what_it_was_built_from() -> None:
    world = made(rebuild={})
    assert image_of(world).bases == (f"{BASE}@{digest_of('1')}",)
    assert all(entry.bases == () for entry in run_of(world).platforms), "said once"
    assert world.status.base_images is None
    assert world.decide().wake_after is None


def test_a_look_is_due_an_interval_after_the_run_and_asks_for_what_the_image_was_built_from() -> None:
    world = made()
    assert world.decide().wake_after == HOUR
    wait(world)
    (name,) = looks(world)
    assert world.pods[name]["spec"]["containers"][0]["args"] == ["resolve", f"--base={BASE}@{digest_of('1')}"]
    assert not [volume for volume in world.pods[name]["spec"]["volumes"] if "secret" in str(volume).lower()]


def test_a_base_that_is_what_it_was_starts_nothing() -> None:
    world = made()
    before = run_of(world)
    look(world)
    assert run_of(world) == before
    assert (status_of(world).checks, status_of(world).moved) == (1, ())
    assert world.decide().wake_after == HOUR
    assert looks(world) == []


def test_a_base_that_has_moved_starts_a_run_that_names_it() -> None:
    world = made()
    first = run_of(world)
    world.base_tag = "2"
    look(world)
    run = run_of(world)
    assert (run.id != first.id, run.trigger) == (True, Trigger.BASE_IMAGE_CHANGED)
    before, now = (digest_of(tag)[:19] for tag in ("1", "2"))
    assert run.cause == f"base image {BASE} was {before} and is {now}"
    end(world)
    assert image_of(world).bases == (world.base_image,)
    assert status_of(world).moved == ()
    look(world)
    assert run_of(world).id == run.id


@pytest.mark.parametrize("failed", [False, True], ids=["behind a mirror", "that fails"])
def test_one_digest_starts_one_run(failed: bool) -> None:  # noqa: FBT001
    world = made()
    world.base_tag, world.mirrored = "2", "1"
    look(world)
    run = run_of(world)
    if failed:
        for pod in list(world.pods.values()):
            if pod_from(pod).role is Role.BUILD and pod_from(pod).ended is None:
                world.fail(pod, Reason.BUILD_FAILED)
        world.settle()
    else:
        end(world)
    look(world)
    assert status_of(world).moved == (world.base_image,)
    assert run_of(world).id == run.id
    world.base_tag = "3"
    look(world)
    assert (run_of(world).id != run.id, run_of(world).trigger) == (True, Trigger.BASE_IMAGE_CHANGED)


def test_what_is_pinned_costs_nothing() -> None:
    world = made()
    world.write(world.status.model_copy(update={"image": image_of(world).model_copy(update={"bases": ()})}))
    world.settle()
    assert world.decide().wake_after is None


def test_a_look_that_fails_is_told_and_leaves_the_image_ready() -> None:
    world = made()
    wait(world)
    world.fail(world.pod(Role.CHECK_BASES), Reason.REGISTRY_UNREACHABLE, "no answer")
    decision = world.reconcile()
    assert [(event.reason, event.message) for event in decision.events] == [
        ("BaseImageCheckFailed", "RegistryUnreachable: no answer")
    ]
    assert ready(world.status)[0] == "True"
    assert "the last look at base images failed: RegistryUnreachable: no answer" in ready(world.status)[2]
    assert world.decide().wake_after == HOUR


def test_it_is_asked_and_built_in_the_window_only() -> None:
    world = made(rebuild={"onBaseImage": {"interval": "1h", "window": {"start": "22:00", "duration": "2h"}}})
    assert world.decide().wake_after == timedelta(hours=10), "it is noon"
    world.base_tag = "2"
    wait(world)
    world.advance(3 * 3600)  # the answer comes late
    before = run_of(world)
    world.succeed_all(Role.CHECK_BASES)
    world.settle()
    assert run_of(world).id == before.id
    assert status_of(world).moved == (world.base_image,)
    wait(world)
    assert world.now.hour == 22
    assert run_of(world).trigger is Trigger.BASE_IMAGE_CHANGED


def test_not_all_builds_are_looked_at_when_the_window_opens() -> None:
    window = {"start": "22:00", "duration": "2h"}
    looks = set()
    for number in range(8):
        world = World(manifest(rebuild={"onBaseImage": {"interval": "5h", "window": window}}))
        world.resource["metadata"]["uid"] = f"uid-{number}"
        world.settle()
        end(world)
        after = world.decide().wake_after
        assert after is not None
        moment = world.now + after
        assert moment.hour == 22
        looks.add(moment)
    assert len(looks) > 4


def test_the_policy_bounds_the_interval_and_spreads_the_looks() -> None:
    world = made(RebuildPolicy(min_interval="6h", jitter="0s"))
    assert world.decide().wake_after == 6 * HOUR
    world = made(RebuildPolicy(min_interval="10h"))
    wake = world.decide().wake_after
    assert wake
    assert 10 * HOUR < wake < 10 * HOUR + timedelta(minutes=30)
    spread = {RebuildPolicy().spread(str(uid), HOUR) for uid in range(100)}
    assert max(spread) <= HOUR / 10
    assert len(spread) > 50


def test_a_look_that_is_asked_for_is_at_once() -> None:
    world = made()
    world.base_tag = "2"
    world.annotate(FLUX_RECONCILE_ANNOTATION, "now")
    world.settle()
    world.succeed_all(Role.CHECK_BASES)
    world.settle()
    assert run_of(world).trigger is Trigger.BASE_IMAGE_CHANGED
