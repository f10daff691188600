"""Builds at once, in turns that are fair: whatever happens, the limits hold, nobody starves, all agree on the order."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.others import Other, summarized
from multiarchbuild.plan.policy import Concurrency, Policy
from multiarchbuild.plan.turns import Turn, admitted, turn
from tests.unit.plan.world import START, World, build, kstatus


def other(name: str, namespace: str = "a", *, running: bool = False, since: int | None = None) -> Other:
    """Return a build that runs, or waits since so many seconds after START, or neither."""
    waiting_since = START + timedelta(seconds=since) if since is not None else None
    return Other(namespace, name, name, START, running, waiting_since, f"r.test/{name}", frozenset({"latest"}))


def newcomer(name: str = "new", namespace: str = "a") -> MultiArchBuild:
    """Return a build that wants its first run."""
    fresh = build(name)
    return fresh.model_copy(
        update={"metadata": fresh.metadata.model_copy(update={"namespace": namespace, "uid": name})}
    )


def limits(cluster: int | None = None, namespace: int | None = None) -> Concurrency:
    return Concurrency(cluster=cluster, namespace=namespace)


LATER = START + timedelta(hours=1)


@pytest.mark.parametrize(
    ("others", "most", "ahead", "blocked"),
    [
        ([], limits(), 0, ""),
        ([other("x", running=True)] * 9, limits(), 0, ""),
        ([other("x", running=True)], limits(cluster=1), 0, "1 of at most 1 runs of the cluster (concurrency.cluster)"),
        ([other("x", running=True)], limits(cluster=2), 0, ""),
        ([other("x", running=True)], limits(namespace=1), 0, "1 of at most 1 runs of namespace a"),
        ([other("x", "b", running=True)], limits(namespace=1), 0, ""),
        ([other("x", since=0)], limits(cluster=1), 1, "0 of at most 1 runs of the cluster"),
        ([other("x", since=0)], limits(cluster=2), 1, ""),
        ([other("x"), other("y")], limits(cluster=1), 0, ""),
        # Nobody is held up by somebody who is held up by another limit.
        ([other("x", "b", running=True), other("y", "b", since=0)], limits(2, 1), 0, ""),
        # Of two namespaces, the one with fewer runs goes first, however long the other waits.
        ([other("x", "b", running=True), other("y", "b", since=0), other("z", "c", running=True)], limits(3), 0, ""),
    ],
)
def test_whose_turn_it_is(others: list[Other], most: Concurrency, ahead: int, blocked: str) -> None:
    found = turn(newcomer(), others, most, LATER)
    assert found.ahead == ahead
    assert found.blocked_by.startswith(blocked)
    assert bool(found.blocked_by) == bool(blocked)


def test_one_namespace_with_a_hundred_builds_does_not_hold_up_another_with_one() -> None:
    crowd = [other(f"x{number}", "b", since=number) for number in range(100)]
    assert turn(newcomer(), crowd, limits(cluster=1), LATER).ahead == 1


def test_what_is_known_of_the_build_itself_does_not_count_twice() -> None:
    fresh = newcomer()
    assert turn(fresh, [summarized(fresh)], limits(cluster=1), LATER) == Turn(0, 1, "")


WAITING = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 5)), max_size=12).map(
    lambda rows: [
        other(f"{namespace}{number}", namespace, running=running, since=None if running else since)
        for number, (namespace, running, since) in enumerate(rows)
    ]
)
LIMITS = st.builds(limits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 3))


@given(WAITING, LIMITS, st.randoms(use_true_random=False))
def test_all_agree_on_who_is_next(others: list[Other], most: Concurrency, shuffle: random.Random) -> None:
    chosen = {each.uid for each in admitted(others, most, LATER)}
    shuffled = others.copy()
    shuffle.shuffle(shuffled)
    assert {each.uid for each in admitted(shuffled, most, LATER)} == chosen
    for each in others:
        if each.waiting_since is not None:
            own = turn(waiting(each), shuffled, most, LATER)
            assert (own.blocked_by == "") == (each.uid in chosen), each


@given(WAITING, LIMITS)
def test_limits_hold_and_no_turn_is_wasted(others: list[Other], most: Concurrency) -> None:
    before = running(others)
    chosen = admitted(others, most, LATER)
    after = before + Counter(each.namespace for each in chosen)
    assert most.cluster is None or after.total() <= max(most.cluster, before.total())
    for namespace, count in after.items():
        assert most.namespace is None or count <= max(most.namespace, before[namespace])
    left = {each.namespace for each in others if each.waiting_since is not None and each not in chosen}
    full = most.cluster is not None and after.total() >= most.cluster
    assert full or all(most.namespace is not None and after[each] >= most.namespace for each in left)


@given(WAITING, st.integers(1, 3))
def test_everybody_gets_a_turn(others: list[Other], most: int) -> None:
    rounds = 0
    while any(each.waiting_since for each in others):
        others = [each for each in others if not each.running]  # they end
        chosen = admitted(others, limits(cluster=most), LATER)
        assert chosen
        others = [replace(each, running=True, waiting_since=None) if each in chosen else each for each in others]
        rounds += 1
    assert rounds <= 12


def running(others: Sequence[Other]) -> Counter[str]:
    return Counter(each.namespace for each in others if each.running)


def waiting(seen: Other) -> MultiArchBuild:
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
    assert first.wake_after == timedelta(seconds=30)
    assert (world.pods, world.status.run) == ({}, None)
    conditions = {entry.type: entry for entry in world.status.conditions}
    ready = conditions[ConditionType.READY]
    assert (ready.status, ready.reason) == ("Unknown", Reason.QUEUED)
    assert "1 of at most 1 runs of the cluster (concurrency.cluster) are going on; 0 of 0 that wait" in ready.message
    assert kstatus(world.status, 1) == "InProgress"
    assert summarized(world.build).waiting_since == START

    world.advance(60)
    again = world.reconcile(others=[*busy, other("y", "b", since=-5)])
    assert again.events == ()
    assert summarized(world.build).waiting_since == START, "it keeps its place"

    world.reconcile(others=[])
    assert world.status.run
    assert summarized(world.build).running


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
    assert summarized(world.build).waiting_since is None
    assert {entry.reason for entry in world.status.conditions} == {Reason.SUSPENDED}


def test_a_run_that_was_cut_off_before_status_was_written_is_no_orphan() -> None:
    world = World(policy=ONE)
    world.reconcile(killed_after=2)
    assert len(world.pods) == 1
    world.settle([other("x", running=True)])
    assert world.pods == {}, "somebody else has the turn now"
    world.settle([])
    assert [pod for pod in world.pods.values() if pod["metadata"]["labels"]["multiarch.build/role"] == Role.BUILD]
