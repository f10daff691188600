"""When something has expired, and what a build says of it to its publish step; tests/steps/test_expiry.py deletes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.results import Pushed
from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.expiry import Use, Used, agreed, arguments, is_list, list_tag, read
from multiarchbuild.plan.identity import fingerprint
from multiarchbuild.plan.policy import Policy
from tests.unit.plan.world import World, build, manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = st.sets(st.text("ab", min_size=1, max_size=3), max_size=5)


def published(*names: str, at: datetime = NOW) -> Used:
    used = Used()
    for name in names:
        used = used.published(name, at)
    return used


def test_what_is_seen_again_begins_anew() -> None:
    used = published("a", "b")
    assert used.due(NOW + HOUR, HOUR) == []
    assert used.due(NOW + 2 * HOUR, HOUR) == ["a", "b"]
    assert used.seen(["a"], NOW + 2 * HOUR).due(NOW + 2 * HOUR, HOUR) == ["b"]
    assert used.without(["a"]).due(NOW + 4 * HOUR, HOUR) == ["b"]


def test_only_what_was_published_is_ever_on_a_list() -> None:
    assert published("a").seen(["b"], NOW).found_unused(["c"], NOW) == published("a")


def test_what_is_found_unused_waits_from_then_on_and_only_once() -> None:
    used = published("a", "b").found_unused(["a"], NOW + HOUR).found_unused(["a"], NOW + 2 * HOUR)
    assert used.entries == {"a": Use(at=NOW + HOUR, unused=True), "b": Use(at=NOW)}
    assert used.seen(["a"], NOW + 2 * HOUR).entries["a"] == Use(at=NOW + 2 * HOUR)


@given(NAMES, NAMES, st.integers(0, 10))
def test_nothing_is_due_that_was_in_use_within_its_time(early: set[str], late: set[str], hours: int) -> None:
    now = NOW + hours * HOUR
    used = published(*early).seen(late, now)
    due = set(used.due(now, 3 * HOUR))
    assert not due & late
    assert due == (early - late if hours > 3 else set())


def test_a_list_stays_small_and_forgets_the_oldest() -> None:
    used = Used(entries={"old": Use(at=NOW)} | {str(number): Use(at=NOW + HOUR) for number in range(2000)})
    used = used.published("new", NOW + HOUR)
    assert len(used.entries) == 2000
    assert "old" not in used.entries


def test_a_list_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    used = Used(entries={"a": Use(at=NOW, digest="sha256:1")})
    assert read(used.model_dump_json(by_alias=True).encode()) == used
    for content in (
        b"",
        b"[]",
        b'{"entries": {"a": {"at": "yesterday"}}}',
        b'{"entries": {"a": {"at": 1e300}}}',
        b"\xff",
    ):
        assert read(content) is None


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_no_time_in_a_list_is_too_far_away_to_be_compared(at: str) -> None:
    used = read(f'{{"entries": {{"a": {{"at": "{at}", "expire": 1000000000000000}}}}}}'.encode())
    assert used is not None
    assert used.due(NOW, timedelta(days=50000)) == (["a"] if at.startswith("0001") else [])
    assert used.credible(NOW) is not None


def test_a_list_with_the_future_in_it_begins_anew() -> None:
    used = published("old").published("new", NOW + 24 * HOUR)
    assert used.credible(NOW + 48 * HOUR) == used
    assert used.credible(NOW + 2 * HOUR).due(NOW + 3 * HOUR, HOUR) == []


def test_the_time_is_the_operators_and_none_where_the_node_has_another() -> None:
    assert agreed(NOW, NOW + timedelta(minutes=4)) == NOW
    assert agreed(NOW, NOW + timedelta(minutes=6)) is None
    assert agreed(NOW, NOW - timedelta(minutes=6)) is None
    assert agreed(None, NOW) is None


def test_the_tag_of_a_list_is_none_of_a_cache_and_of_one_build_only() -> None:
    mine = build(cache={"expire": "2h"})
    tag = list_tag(mine)
    assert is_list(tag)
    assert not any(is_list(each.rpartition(":")[2]) for each in arguments(mine, Policy()) if "cache" in each[:8])
    assert not is_list("cache-0123-used-linux-amd64")
    assert not is_list("latest-used")
    elsewhere = mine.model_copy(update={"metadata": mine.metadata.model_copy(update={"uid": "another"})})
    assert list_tag(elsewhere) != tag, "a build of the same name in another cluster"


def test_the_publish_step_is_told_only_what_it_needs() -> None:
    assert arguments(build(), Policy()) == []
    mine = build(cache={"expire": "2h"}, output={"image": "r.test/team/app"})
    told = arguments(mine, Policy())
    assert [each.partition("=")[0] for each in told] == ["--list", "--cache", "--cache", "--cache-from", "--cache-from"]
    assert [each.rpartition("-")[2] for each in told[1:]] == ["amd64", "arm64", "amd64", "arm64"]
    assert arguments(build(output={"image": "r.test/team/app", "expire": "2h"}), Policy()) == told[:1]


@pytest.mark.parametrize("part", ["output", "cache"])
def test_another_expiry_builds_nothing(part: str) -> None:
    spec = build(output={"image": "r.test/team/app"}).spec
    document = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    document[part] = {**document.get(part, {}), "expire": "9h"}
    assert fingerprint(Spec.model_validate(document)) == fingerprint(spec)


@pytest.mark.parametrize("late", [True, False], ids=["to a pod that waits", "with the pod"])
def test_the_operators_time_comes_with_what_was_built_where_something_expires(*, late: bool) -> None:
    for expire in ("720h", None):
        w = World(manifest(platforms=["linux/amd64", "linux/arm64"], cache={"expire": expire} if expire else {}))
        w.settle()
        w.succeed_all(Role.RESOLVE)
        w.settle()
        w.advance(60)
        if late:
            w.succeed(w.pod(platform="linux/amd64"))
            w.start(w.pod(platform="linux/arm64"))
            w.settle()
        w.succeed_all(Role.BUILD)
        w.settle()
        pushed = Pushed.model_validate_json(pod_from(w.pod(Role.PUBLISH)).built_annotation)
        assert pushed.handed_at == (w.now if expire else None)
