"""Two builds that move the same tag: the newer one is told, and only that one."""

from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import ImageStatus
from multiarchbuild.plan.build_summary import summarize
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.conflicts import tag_conflict
from tests.unit.plan.world import GIT, START, World, build, kstatus

IMAGE = "registry.example.com/team-a/app"


def named(name: str, namespace: str = "team-a", *, age: int = 0, **output: Any) -> MultiArchBuild:
    """Return a build that is so many seconds older than START."""
    made = build(name, source=GIT, output={"image": IMAGE, **output})
    update = {
        "namespace": namespace,
        "uid": f"{namespace}/{name}",
        "creation_timestamp": START - timedelta(seconds=age),
    }
    return made.model_copy(update={"metadata": made.metadata.model_copy(update=update)})


def told(own: MultiArchBuild, *others: MultiArchBuild) -> str:
    return tag_conflict(own, ClusterView(builds=map(summarize, (own, *others))))


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (named("b"), named("a", age=1), f"{IMAGE}:latest: also moved by a, which is older. Change output.tags or"),
        (named("b", age=2), named("a", age=1), ""),
        # Made in the same second: the uid decides, for both alike.
        (named("b"), named("a"), f"{IMAGE}:latest: also moved by a"),
        (named("a"), named("b"), ""),
        (named("b"), named("a", "team-b", age=1), "also moved by a build of another namespace, which"),
        (named("b", tags=["v1"]), named("a", age=1), ""),
        (named("b", image="registry.example.com/other"), named("a", age=1), ""),
        (named("b", tags=["v1", "v2", "v3", "v4"]), named("a", age=1, tags=["v4", "v3", "v2", "v1"]), f"{IMAGE}:v3, …"),
        (named("b", tags=[]), named("a", age=1, tags=[]), ""),
        # In a further repository of either, or of both.
        (
            named("b", image="registry.example.com/b", destinations=[{"image": IMAGE}]),
            named("a", age=1),
            f"{IMAGE}:latest: also moved by a, which is older. Change output.tags or the repository of one of the two.",
        ),
        (named("b"), named("a", age=1, image="r.test/a", destinations=[{"image": IMAGE}]), f"{IMAGE}:latest: also"),
        (
            named("b", image="r.test/b", destinations=[{"image": "r.test/c"}, {"image": "r.test/d"}]),
            named("a", age=1, image="r.test/a", destinations=[{"image": "r.test/d"}]),
            "r.test/d:latest: also moved by a",
        ),
        (named("b", destinations=[{"image": "r.test/c"}]), named("a", age=1, image="r.test/a"), ""),
        # A tag with a placeholder is known once it was made.
        (named("b", tags=["{shortCommit}"]), named("a", age=1, tags=["{shortCommit}"]), ""),
    ],
)
def test_who_is_told_what(own: MultiArchBuild, other: MultiArchBuild, expected: str) -> None:
    message = told(own, other)
    assert expected in message
    assert bool(message) == bool(expected)


def test_tags_that_both_have_made_from_placeholders() -> None:
    def published(made: MultiArchBuild, *tags: str) -> MultiArchBuild:
        digest = f"sha256:{'0' * 64}"
        image = ImageStatus(ref=f"{IMAGE}@{digest}", digest=digest, tags=tags)
        return made.model_copy(update={"status": made.status.model_copy(update={"image": image})})

    own, other = named("b", tags=["{date}"]), named("a", age=1, tags=["{date}"])
    assert f"{IMAGE}:20260131: " in told(published(own, "20260131"), published(other, "20260131"))
    assert told(published(own, "20260131"), published(other, "20260130")) == ""
    assert told(published(own, "latest"), published(named("c", age=1, tags=["v1"]), "latest")) == "", "it was edited"


def test_the_oldest_of_several_is_named() -> None:
    assert "also moved by a," in told(named("c"), named("b", age=1), named("a", age=2))


def test_it_is_a_condition_that_comes_and_goes_and_an_event_that_comes_once() -> None:
    world = World()
    older = summarize(named("a", age=1))
    first = world.reconcile(others=[older])
    assert [event.type for event in first.events if event.reason == Reason.TAG_CONFLICT] == ["Warning"]
    conditions = {entry.type: entry for entry in world.status.conditions}
    assert conditions[ConditionType.TAG_CONFLICT].status == "True"
    assert kstatus(world.status, 1) == "InProgress", "it is built all the same"
    since = conditions[ConditionType.TAG_CONFLICT].last_transition_time
    world.advance(60)
    again = world.reconcile(others=[older])
    assert Reason.TAG_CONFLICT not in [event.reason for event in again.events]
    assert next(e for e in world.status.conditions if e.type == "TagConflict").last_transition_time == since
    world.reconcile(others=[])
    assert ConditionType.TAG_CONFLICT not in [entry.type for entry in world.status.conditions]


def test_a_build_is_found_by_the_repositories_that_it_has_now() -> None:
    view = ClusterView(builds=[summarize(named("a", age=1, destinations=[{"image": "r.test/c"}]))])
    assert [each.name for each in view.pushing_to("r.test/c")] == ["a"]
    view.store(summarize(named("a", age=1, destinations=[{"image": "r.test/d"}])))
    assert [list(view.pushing_to(name)) == [] for name in ("r.test/c", "r.test/d", IMAGE)] == [True, False, False]
    view.remove("team-a/a")
    assert not any(list(view.pushing_to(name)) for name in ("r.test/c", "r.test/d", IMAGE))
