"""Images that are built from images of other builds."""

import json
from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Status, Trigger
from multiarchbuild.plan.build_summary import summarize
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.parents import parents_of
from tests.unit.plan.world import FROM_BASE, World, base, build, digest_of, kstatus, manifest


def ready(status: Status) -> tuple[str, str, str]:
    """Return status, reason and message of the Ready condition."""
    (found,) = [condition for condition in status.conditions if condition.type == "Ready"]
    return found.status, str(found.reason), found.message


def world(*others: Any, **fields: Any) -> World:
    made = World(manifest(**{"build": FROM_BASE, **fields}))
    made.others = list(others)
    made.settle()
    return made


def contexts(world: World) -> dict[str, str]:
    """Return the named contexts that the steps of the newest run are told."""
    (*_, newest) = world.config_maps.values()
    found: dict[str, str] = json.loads(newest["data"]["inputs.json"])["spec"]["build"]["contexts"]
    return found


def test_it_waits_for_the_first_image_and_says_in_which_order() -> None:
    waiting = world(base(parents=["root"]), base("1", name="root"))
    status = waiting.status
    assert status.run is None
    assert ready(status)[:2] == ("False", "ParentNotReady")
    assert "MultiArchBuild base has not published an image yet" in ready(status)[2]
    assert "(order: root → base → app)" in ready(status)[2]
    assert kstatus(status, 1) == "InProgress"
    waiting.others = [base("1")]
    waiting.settle()
    assert waiting.status.run
    assert waiting.status.run.trigger is Trigger.SPEC_CHANGED


def test_the_steps_are_told_its_digest() -> None:
    made = world(base("1"))
    assert contexts(made) == {"base": f"docker-image://registry.example.com/team-a/base@{digest_of('1')}"}
    assert made.status.run
    assert [(each.name, each.ref) for each in made.status.run.parents] == [("base", base("1").published)]


def test_another_image_of_a_parent_starts_one_run_that_says_which() -> None:
    made = world(base("1"))
    made.others = [base("2")]
    made.settle()
    first = made.status.run
    assert first
    assert first.result is None, "a newer parent takes no run away"
    made.finish()
    run = made.status.run
    assert run
    assert (run.id != first.id, run.trigger) == (True, Trigger.PARENT_PUBLISHED)
    assert run.cause == "MultiArchBuild base has published another image"
    assert contexts(made)["base"].endswith(digest_of("2"))
    made.finish()
    assert made.status.run
    assert made.status.run.id == run.id, "one run"
    assert made.decide().wake_after is None


def test_a_run_that_failed_on_an_image_of_a_parent_is_not_tried_again_before_the_next() -> None:
    made = world(base("1"), retries=0, platforms=["linux/amd64"])
    made.fail(made.pod(Role.BUILD), Reason.BUILD_FAILED)
    made.settle()
    failed = made.status.run
    assert failed
    assert failed.result
    made.settle()
    assert made.status.run == failed
    made.others = [base("2")]
    made.settle()
    assert made.status.run
    assert made.status.run.trigger is Trigger.PARENT_PUBLISHED
    assert made.status.run.platforms[0].attempt == 1, "what was built from another parent is not carried over"


@pytest.mark.parametrize("trouble", ["is suspended", "is not built: its last run ended with BuildFailed"])
def test_what_is_wrong_with_a_parent_is_said_and_its_last_image_stays_good(trouble: str) -> None:
    made = world(base("1"))
    made.finish()
    made.others = [base("1", trouble=trouble)]
    made.settle()
    assert ready(made.status)[0] == "True"
    assert f"MultiArchBuild base {trouble}" in ready(made.status)[2]


def test_a_platform_that_a_parent_lacks_is_named_before_anything_is_started() -> None:
    lacking = replace(base("1"), published_for=("linux/amd64",))
    made = world(lacking)
    assert made.status.run is None
    assert "publishes no image for linux/arm64: add it to its spec.platforms" in ready(made.status)[2]
    assert world(lacking, scheduling={"strategy": "Cross"}).status.run, "a Cross builder may need it for its node only"


def test_a_parent_that_does_not_exist_is_waited_for() -> None:
    made = world()
    assert "MultiArchBuild base does not exist in this namespace" in ready(made.status)[2]


def test_a_parent_of_another_namespace_is_none() -> None:
    found = ClusterView(builds=[base("1")])
    assert found.named("team-b", "base") is None


def test_a_cycle_is_refused_with_the_way_around_it() -> None:
    made = world(base(parents=["middle"]), base(name="middle", parents=["app"]))
    assert made.status.run is None
    assert ready(made.status)[:2] == ("False", "InvalidSpec")
    assert "app → base → middle → app" in ready(made.status)[2]
    assert kstatus(made.status, 1) == "Failed"
    assert "app → app" in ready(world(build={"contexts": {"x": "multiarchbuild://app"}}).status)[2]


def test_a_cycle_above_that_does_not_lead_back_is_a_parent_without_an_image() -> None:
    made = world(
        base(parents=["middle"], trouble="can not be built: InvalidSpec"), base(name="middle", parents=["base"])
    )
    assert ready(made.status)[:2] == ("False", "ParentNotReady")
    assert "has not published an image yet and can not be built: InvalidSpec" in ready(made.status)[2]


def test_the_order_of_many_is_cut() -> None:
    many = [base(name=f"b{number}", parents=[f"b{number - 1}"] if number else []) for number in range(40)]
    found = parents_of(build(build={"contexts": {"base": "multiarchbuild://b39"}}), ClusterView(builds=many))
    assert "(order: … → b29 →" in found.problem
    assert found.problem.endswith("b39 → app)")


def test_a_summary_says_what_those_have_to_know_that_are_built_from_it() -> None:
    made = world(base("1"))
    made.finish()
    summary = summarize(made.build)
    assert summary.parents == ("base",)
    assert summary.published.startswith("registry.example.com/team-a/app@sha256:")
    assert (summary.published_for, summary.trouble) == (("linux/amd64", "linux/arm64"), "")
    made.edit(suspend=True)
    assert summarize(made.build).trouble == "is suspended"


def test_a_view_forgets_who_was_built_from_what() -> None:
    view = ClusterView(builds=[base("1"), base(name="app", parents=["base"])])
    assert view.built_from("team-a", "base") == ("app",)
    view.store(base(name="app", parents=["other"]))
    assert view.built_from("team-a", "base") == ()
    assert view.built_from("team-a", "other") == ("app",)
    view.remove("uid-of-app")
    assert view.built_from("team-a", "other") == ()
    assert view.named("team-a", "app") is None


def test_a_chain_may_be_longer_than_python_calls_functions() -> None:
    many = [base(name=f"b{number}", parents=[f"b{number - 1}"] if number else []) for number in range(3000)]
    found = parents_of(build(build={"contexts": {"base": "multiarchbuild://b2999"}}), ClusterView(builds=many))
    assert found.problem.endswith("b2999 → app)")
