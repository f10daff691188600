"""A base image whose tag has moved starts one run."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION
from multiarchbuild.api.status import BaseImagesCheck, ImageStatus, RunStatus, Trigger
from multiarchbuild.plan.build_summary import BuildSummary, summarize
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import Policy, RebuildPolicy
from tests.unit.plan.test_parents import ready
from tests.unit.plan.world import BASE, FROM_BASE, ON_BASE, World, base, digest_of, manifest

HOUR = timedelta(hours=1)


def made(
    policy: RebuildPolicy | None = None,
    rebuild: dict[str, Any] = ON_BASE,
    others: Sequence[BuildSummary] = (),
    **fields: Any,
) -> World:
    """Return a world whose build has an image."""
    world = World(manifest(rebuild=rebuild, **fields), policy=Policy(rebuild=policy or RebuildPolicy(jitter="0s")))
    world.others = list(others)
    world.settle()
    world.finish()
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
    world.finish()
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
        world.finish()
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
        world.finish()
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


REPOSITORY, _, TAG = BASE.rpartition(":")
OWN = "registry.example.com/team-a/app:latest"
"""What the build of these tests pushes, unless it is told another."""


def moves_base(name: str = "mover", namespace: str = "team-a", **fields: Any) -> BuildSummary:
    """Return another build that pushes the base image of this one."""
    summary = replace(base("1", name=name), image=REPOSITORY, tags=frozenset({TAG}), namespace=namespace)
    return replace(summary, **fields)


@pytest.mark.parametrize(
    "output",
    [
        {"image": REPOSITORY, "tags": ["latest", TAG]},
        {"image": "r.test/app", "tags": [TAG], "destinations": [{"image": REPOSITORY}]},
    ],
    ids=["of its image", "of a further repository"],
)
def test_its_own_tag_is_no_base_image_that_moves(output: dict[str, Any]) -> None:
    world = made(output=output)
    first = run_of(world)
    assert image_of(world).bases == (f"{BASE}@{digest_of('1')}",), "what it was built from is told all the same"
    world.base_tag = "2"  # its own run has moved it
    assert world.decide().wake_after is None, "nobody looks for it"
    world.annotate(FLUX_RECONCILE_ANNOTATION, "now")
    world.settle()
    assert looks(world) == []
    assert run_of(world).id == first.id
    assert f"base image {BASE} is built from this image (app → app): its changes" in ready(world.status)[2]


def test_the_tag_of_one_of_its_platforms_is_its_own() -> None:
    tagged = {"image": REPOSITORY, "tags": ["1"], "childTags": True}
    summary = summarize(made(output=tagged).build)
    assert summary.moves(f"{REPOSITORY}:1-arm64")
    assert not summary.moves(f"{REPOSITORY}:1-386"), "it is not built for that"
    assert not replace(summary, child_suffixes=()).moves(f"{REPOSITORY}:1-arm64")


@pytest.mark.parametrize(
    ("others", "way"),
    [
        ([moves_base(base_images=(OWN,))], "app → mover → app"),
        ([moves_base(parents=("app",))], "app → mover → app"),
        (
            [moves_base(parents=("middle",)), replace(base("1", name="middle"), base_images=(OWN,))],
            "app → middle → mover → app",
        ),
        ([moves_base(namespace="team-b", base_images=(OWN,))], "app → a build of another namespace → app"),
    ],
    ids=["by a tag", "by its name", "by two others", "across namespaces"],
)
def test_a_base_image_that_others_make_from_this_image_starts_nothing(others: list[BuildSummary], way: str) -> None:
    world = made(others=others)
    first = run_of(world)
    assert world.decide().wake_after is None
    world.base_tag = "2"
    world.advance(24 * 3600)
    world.settle()
    assert looks(world) == []
    assert run_of(world).id == first.id
    assert f"base image {BASE} is built from this image ({way})" in ready(world.status)[2]


@pytest.mark.parametrize(
    "others",
    [
        [moves_base()],
        [moves_base(base_images=("docker.io/library/alpine:3",))],
        [moves_base(base_images=(OWN.replace("latest", "old"),))],
        [moves_base(tags=frozenset({"other"}), base_images=(OWN,))],
        [moves_base(parents=("middle",)), base("1", name="middle", parents=["mover"])],
    ],
    ids=["does not follow", "follows another", "follows another tag", "moves another tag", "a cycle beside it"],
)
def test_a_base_image_of_a_build_that_does_not_follow_this_one_counts(others: list[BuildSummary]) -> None:
    world = made(others=others)
    world.base_tag = "2"
    look(world)
    assert run_of(world).trigger is Trigger.BASE_IMAGE_CHANGED


def test_a_base_image_that_is_moved_by_a_parent_which_follows_counts_for_neither() -> None:
    """One edge of the cycle is a name and the other one a tag."""
    parent = replace(moves_base(), name="base", uid="uid-of-base", base_images=(OWN,))
    world = made(others=[parent], build=FROM_BASE)
    assert world.decide().wake_after is None
    world.others = [replace(parent, published=base("2").published)]
    world.settle()
    assert run_of(world).trigger is Trigger.PARENT_PUBLISHED, "the other edge is seen by the other build"


def test_a_cycle_that_closes_while_a_look_goes_on_starts_nothing() -> None:
    world = made()
    first = run_of(world)
    world.base_tag = "2"
    wait(world)
    world.others = [moves_base(base_images=(OWN,))]
    world.succeed_all(Role.CHECK_BASES)
    world.settle()
    assert run_of(world).id == first.id


def test_others_see_which_tags_a_build_follows() -> None:
    assert summarize(made().build).base_images == (BASE,)
    assert summarize(made(rebuild={}).build).base_images == ()
