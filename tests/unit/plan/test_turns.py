"""Builds at once, in turns that are fair: whatever happens, the limits hold, nobody starves, all agree on the order."""

import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.build_summary import BuildSummary, summarize
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Concurrency, Policy
from multiarchbuild.plan.turns import Turns
from tests.unit.plan.world import START, World, build, kstatus


def other(name: str, namespace: str = "a", *, running: bool = False, since: int | None = None) -> BuildSummary:
    """Return a build that runs, or waits since so many seconds after START, or neither."""
    waiting_since = START + timedelta(seconds=since) if since is not None else None
    return BuildSummary(namespace, name, name, START, running, waiting_since, f"r.test/{name}", frozenset({"latest"}))


def newcomer(name: str = "new", namespace: str = "a") -> MultiArchBuild:
    """Return a build that wants its first run."""
    fresh = build(name)
    return fresh.model_copy(
        update={"metadata": fresh.metadata.model_copy(update={"namespace": namespace, "uid": name})}
    )


def limits(cluster: int | None = None, namespace: int | None = None) -> Concurrency:
    return Concurrency(cluster=cluster, namespace=namespace)


LATER = START + timedelta(hours=1)


def blocked_by(build: MultiArchBuild, others: Iterable[BuildSummary], most: Concurrency) -> str:
    return Turns(most, others).blocked_by(summarize(build), LATER)


@pytest.mark.parametrize(
    ("others", "most", "blocked"),
    [
        ([], limits(), ""),
        ([other(f"x{number}", running=True) for number in range(9)], limits(), ""),
        (
            [other("x", running=True)],
            limits(cluster=1),
            "at most 1 runs of the cluster at the same time",
        ),
        ([other("x", running=True)], limits(cluster=2), ""),
        ([other("x", running=True)], limits(namespace=1), "at most 1 runs of namespace a at the same time"),
        ([other("x", "b", running=True)], limits(namespace=1), ""),
        ([other("x", since=0)], limits(cluster=1), "at most 1 runs of the cluster"),
        ([other("x", since=0)], limits(cluster=2), ""),
        ([other("x"), other("y")], limits(cluster=1), ""),
        # Nobody is held up by somebody who is held up by another limit.
        ([other("x", "b", running=True), other("y", "b", since=0)], limits(2, 1), ""),
        # Of two namespaces, the one with fewer runs goes first, however long the other waits.
        ([other("x", "b", running=True), other("y", "b", since=0), other("z", "c", running=True)], limits(3), ""),
    ],
)
def test_whose_turn_it_is(others: list[BuildSummary], most: Concurrency, blocked: str) -> None:
    found = blocked_by(newcomer(), others, most)
    assert found.startswith(blocked)
    assert bool(found) == bool(blocked)


def test_one_namespace_with_a_hundred_builds_does_not_hold_up_another_with_one() -> None:
    crowd = [other(f"x{number}", "b", since=number) for number in range(100)]
    assert blocked_by(newcomer(), crowd, limits(cluster=1))
    assert not blocked_by(newcomer(), crowd, limits(cluster=2)), "one of each namespace"


def test_what_is_known_of_the_build_itself_does_not_count_twice() -> None:
    fresh = newcomer()
    for known in (summarize(fresh), other("new", since=0), other("new", since=7200), other("new", running=True)):
        turns = Turns(limits(cluster=1), [known])
        assert turns.blocked_by(summarize(fresh), LATER) == ""
        assert (turns.running, turns.waiting) == Counts.of([known]), "asking changes nothing"


WAITING = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 5)), max_size=12).map(
    lambda rows: [
        other(f"{namespace}{number}", namespace, running=running, since=None if running else since)
        for number, (namespace, running, since) in enumerate(rows)
    ]
)
LIMITS = st.builds(limits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 3))


@given(WAITING, LIMITS, st.randoms(use_true_random=False))
def test_all_agree_on_who_is_next(others: list[BuildSummary], most: Concurrency, shuffle: random.Random) -> None:
    chosen = {each.uid for each in Turns(most, others).admitted()}
    shuffled = others.copy()
    shuffle.shuffle(shuffled)
    turns = Turns(most, shuffled)
    assert {each.uid for each in turns.admitted()} == chosen
    for each in others:
        if each.waiting_since is not None:
            own = turns.blocked_by(summarize(waiting(each)), LATER)
            assert (own == "") == (each.uid in chosen), each


@given(WAITING, LIMITS, WAITING)
def test_what_is_kept_is_what_would_be_computed_anew(
    others: list[BuildSummary], most: Concurrency, changes: list[BuildSummary]
) -> None:
    """However builds come, change and go: the answers are those of a walk through all of them."""
    turns, now = Turns(most, others), {each.uid: each for each in others}
    for number, change in enumerate(changes):
        if number % 3:
            turns.store(change)
            now[change.uid] = change
        else:
            turns.remove(change.uid)
            now.pop(change.uid, None)
        assert [each.uid for each in turns.admitted()] == walk(list(now.values()), most)
        assert (turns.running, turns.waiting) == Counts.of(list(now.values()))
        stranger = replace(change, uid="stranger", running=False)
        since = stranger.waiting_since or LATER
        would_run = walk([*now.values(), replace(stranger, waiting_since=since)], most)
        assert (not turns.blocked_by(stranger, LATER)) == ("stranger" in would_run)


def walk(others: Sequence[BuildSummary], most: Concurrency) -> list[str]:
    """Return the uids of whose turn it is, one after the other, as the rules say it."""
    taken, total = running(others), running(others).total()
    left = [each for each in others if each.waiting_since is not None and not each.running]
    admitted: list[str] = []
    while left and (most.cluster is None or total < most.cluster):
        oldest = {
            namespace: min(
                (each for each in left if each.namespace == namespace),
                key=lambda each: (each.waiting_since, each.created_at, each.uid),
            )
            for namespace in {each.namespace for each in left}
            if most.namespace is None or taken[namespace] < most.namespace
        }
        if not oldest:
            break
        first = min(
            oldest.values(),
            key=lambda each: (taken[each.namespace], each.waiting_since, each.created_at, each.namespace, each.uid),
        )
        admitted.append(first.uid)
        left.remove(first)
        taken[first.namespace] += 1
        total += 1
    return admitted


def test_three_thousand_that_wait_in_three_hundred_namespaces_cost_little() -> None:
    """Counted, not timed: who looks at the queue touches each namespace once after a change, and nothing after that."""
    crowd = [other(f"x{number}", f"team-{number % 300}", since=number) for number in range(3000)]
    busy = [other(f"r{number}", f"team-{number}", running=True) for number in range(10)]
    turns = Turns(limits(cluster=10), [*crowd, *busy])
    calls = Counter[str]()

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[event] += 1

    turns.remove("r0")
    sys.setprofile(count)
    try:
        for each in crowd:
            turns.blocked_by(each, LATER)
    finally:
        sys.setprofile(None)
    assert calls.total() <= 3000 * 60


@given(WAITING, LIMITS)
def test_limits_hold_and_no_turn_is_wasted(others: list[BuildSummary], most: Concurrency) -> None:
    before = running(others)
    chosen = Turns(most, others).admitted()
    after = before + Counter(each.namespace for each in chosen)
    assert most.cluster is None or after.total() <= max(most.cluster, before.total())
    for namespace, count in after.items():
        assert most.namespace is None or count <= max(most.namespace, before[namespace])
    left = {each.namespace for each in others if each.waiting_since is not None and each not in chosen}
    full = most.cluster is not None and after.total() >= most.cluster
    assert full or all(most.namespace is not None and after[each] >= most.namespace for each in left)


@given(WAITING, st.integers(1, 3))
def test_everybody_gets_a_turn(others: list[BuildSummary], most: int) -> None:
    rounds = 0
    while any(each.waiting_since for each in others):
        others = [each for each in others if not each.running]  # they end
        chosen = Turns(limits(cluster=most), others).admitted()
        assert chosen
        others = [replace(each, running=True, waiting_since=None) if each in chosen else each for each in others]
        rounds += 1
    assert rounds <= 12


class Counts(NamedTuple):
    """How many builds run and wait."""

    running: int
    waiting: int

    @classmethod
    def of(cls, others: Sequence[BuildSummary]) -> "Counts":
        return cls(
            sum(each.running for each in others),
            sum(each.waiting_since is not None and not each.running for each in others),
        )


def running(others: Sequence[BuildSummary]) -> Counter[str]:
    return Counter(each.namespace for each in others if each.running)


def waiting(seen: BuildSummary) -> MultiArchBuild:
    """Return a build that waits as `seen` does."""
    fresh = newcomer(seen.name, seen.namespace)
    ready: dict[str, Any] = {
        "type": "Ready",
        "status": "Unknown",
        "reason": Reason.QUEUED,
        "observedGeneration": 1,
        "lastTransitionTime": seen.waiting_since,
    }
    status = fresh.status.model_validate({"conditions": [ready]})
    return fresh.model_copy(update={"status": status})


ONE = Policy(concurrency=limits(cluster=1))


def test_a_build_waits_says_so_and_goes_on() -> None:
    world = World(policy=ONE)
    busy = [other("x", "b", running=True)]
    first = world.reconcile(others=busy)
    assert [event.reason for event in first.events] == [Reason.QUEUED]
    assert first.wake_after is None, "it is told when its turn comes"
    assert (world.pods, world.status.run) == ({}, None)
    conditions = {entry.type: entry for entry in world.status.conditions}
    ready = conditions[ConditionType.READY]
    assert (ready.status, ready.reason) == ("Unknown", Reason.QUEUED)
    assert ready.message == "queued: at most 1 runs of the cluster at the same time (concurrency.cluster)"
    assert kstatus(world.status, 1) == "InProgress"
    assert summarize(world.build).waiting_since == START

    world.advance(60)
    again = world.reconcile(others=[*busy, other("y", "b", since=-5)])
    assert (again.events, again.status) == ((), first.status), "the queue has changed, what is said of it has not"
    assert summarize(world.build).waiting_since == START, "it keeps its place"

    world.reconcile(others=[])
    assert world.status.run
    assert summarize(world.build).running


def test_a_run_that_is_superseded_hands_its_turn_on() -> None:
    world = World(policy=ONE)
    world.reconcile()
    assert world.status.run
    before = world.status.run.id
    world.edit(reproducible=False)
    world.reconcile(others=[other("x", since=-100)])
    assert world.status.run.id != before
    assert world.status.run.result is None


def test_a_build_that_is_suspended_gives_its_place_up() -> None:
    world = World(policy=ONE)
    world.reconcile(others=[other("x", running=True)])
    world.edit(suspend=True)
    world.reconcile(others=[other("x", running=True)])
    assert summarize(world.build).waiting_since is None
    assert {entry.reason for entry in world.status.conditions} == {Reason.SUSPENDED}


def test_a_run_that_was_cut_off_before_status_was_written_is_no_orphan() -> None:
    world = World(policy=ONE)
    world.reconcile(killed_after=2)
    assert len(world.pods) == 1
    world.settle([other("x", running=True)])
    assert world.pods == {}, "somebody else has the turn now"
    world.settle([])
    assert [pod for pod in world.pods.values() if pod["metadata"]["labels"]["multiarch.build/role"] == Role.BUILD]
