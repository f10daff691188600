"""Whose turn it is when the policy limits how many runs go on at the same time.

The order is a function of what is in the cluster: namespaces with the fewest runs first, of these the one whose first
build has waited the longest, and in a namespace who waits the longest. A restart of the operator changes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api.resource import MultiArchBuild

from .others import Other, summarized
from .policy import Concurrency

_Waiting = tuple[datetime, datetime, str, str]
"""Waits since, created at, namespace, uid: the earlier of two goes first."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a build stands that wants to run."""

    ahead: int
    """How many builds go before it."""
    waiting: int
    """How many wait, this one included."""
    blocked_by: str
    """The limit that keeps it from running, in words; empty when it is its turn."""


def turn(build: MultiArchBuild, others: Sequence[Other], limits: Concurrency, now: datetime) -> Turn:
    """Return where `build` stands, which wants a run and has none."""
    own = summarized(build)
    others = [other for other in others if other.uid != own.uid]
    me: _Waiting = (own.waiting_since or now, own.created_at, own.namespace, own.uid)
    waiting = [
        (other.waiting_since, other.created_at, other.namespace, other.uid)
        for other in others
        if other.waiting_since is not None and not other.running
    ]
    running = Counter(other.namespace for other in others if other.running)
    order = _order([*waiting, me], running, limits)
    at, free = next((at, free) for at, (each, free) in enumerate(order) if each == me)
    total, here = running.total(), running[own.namespace]
    blocked_by = ""
    if not free:
        blocked_by = f"{here} of at most {limits.namespace} runs of namespace {own.namespace} (concurrency.namespace)"
    elif limits.cluster is not None and total + at >= limits.cluster:
        blocked_by = f"{total} of at most {limits.cluster} runs of the cluster (concurrency.cluster)"
    return Turn(ahead=at, waiting=len(order), blocked_by=blocked_by)


def admitted(others: Sequence[Other], limits: Concurrency, now: datetime) -> list[Other]:
    """Return those that wait and whose turn it is."""
    running = Counter(other.namespace for other in others if other.running)
    waiting = {
        (other.waiting_since or now, other.created_at, other.namespace, other.uid): other
        for other in others
        if other.waiting_since is not None and not other.running
    }
    order = [each for each, free in _order(list(waiting), running, limits) if free]
    room = len(order) if limits.cluster is None else max(limits.cluster - running.total(), 0)
    return [waiting[each] for each in order[:room]]


def _order(waiting: Sequence[_Waiting], running: Counter[str], limits: Concurrency) -> list[tuple[_Waiting, bool]]:
    """Return who runs next, and who after that, if each that is taken goes on running.

    Who is kept back by the limit of its namespace (False) comes after all others, in the same order.
    """
    queues: dict[str, list[_Waiting]] = {}
    for each in sorted(waiting, reverse=True):
        queues.setdefault(each[2], []).append(each)
    taken, order, kept_back = Counter(running), [], []
    while queues:
        namespace = min(queues, key=lambda name: (taken[name], queues[name][-1]))
        first = queues[namespace].pop()
        if limits.namespace is not None and taken[namespace] >= limits.namespace:
            kept_back.append((first, False))
        else:
            order.append((first, True))
        taken[namespace] += 1
        if not queues[namespace]:
            del queues[namespace]
    return order + kept_back
