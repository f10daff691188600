"""Whose turn it is when the policy limits how many runs go on at the same time.

The order is a function of what is in the cluster: namespaces with the fewest runs first, of these the one whose first
build has waited the longest, and in a namespace who waits the longest. A restart of the operator changes nothing.

`Turns` keeps what the order needs as builds change. A namespace that starts one build after the other has one run more
at each of them, so that the place of a build is known from its own namespace: (runs there if all before it run, since
when it waits). What waits elsewhere matters only up to the last build for which the cluster has room.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import islice

from .build_summary import BuildSummary
from .policy import Concurrency

_Waiting = tuple[datetime, datetime, str, str]
"""Waits since, created at, namespace, uid: the earlier of two goes first."""
_Place = tuple[int, _Waiting]
"""Runs of the namespace before this one starts, and who it is: the smaller of two goes first."""


class Turns:
    """Runs that go on and builds that wait for one. Asking costs O(namespaces) after a change, else O(log builds)."""

    def __init__(self, limits: Concurrency, builds: Iterable[BuildSummary] = ()) -> None:
        """Begin with `builds`; `limits` never change."""
        self._limits = limits
        self._builds: dict[str, BuildSummary] = {}
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, list[_Waiting]] = {}
        self._next: tuple[_Place, ...] | None = None
        """The places that have their turn, in order; None after a change."""
        for build in builds:
            self.store(build)

    @property
    def running(self) -> int:
        """How many runs go on."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many builds wait for their turn."""
        return sum(map(len, self._waiting.values()))

    def store(self, build: BuildSummary) -> None:
        """Take in a build as it is now."""
        before = self._builds.get(build.uid)
        if before is not None:
            if _counts(before) == _counts(build):
                self._builds[build.uid] = build
                return
            self.remove(build.uid)
        self._builds[build.uid] = build
        if build.running:
            self._running[build.namespace] += 1
        elif build.waiting_since is not None:
            insort(self._waiting.setdefault(build.namespace, []), _waiting(build, build.waiting_since))
        self._next = None

    def remove(self, uid: str) -> None:
        """Forget a build; one that is not known is no error."""
        build = self._builds.pop(uid, None)
        if build is None:
            return
        if build.running:
            self._running[build.namespace] -= 1
            if not self._running[build.namespace]:
                del self._running[build.namespace]
        elif build.waiting_since is not None:
            queue = self._waiting[build.namespace]
            del queue[bisect_left(queue, _waiting(build, build.waiting_since))]
            if not queue:
                del self._waiting[build.namespace]
        self._next = None

    def admitted(self) -> list[BuildSummary]:
        """Return those that wait and whose turn it is, in order."""
        return [self._builds[uid] for _, (*_, uid) in self._admitted()]

    def blocked_by(self, build: BuildSummary, now: datetime) -> str:
        """Return the limit that keeps `build`, which wants a run and has none, from running; empty if it may start.

        What is known of the build itself does not count: `build` is what it is now.
        """
        known = self._builds.get(build.uid)
        own = _waiting(build, build.waiting_since or now)
        if known is not None and _counts(known) != _counts(build):
            self.remove(build.uid)
            try:
                return self._blocked_by(build, own)
            finally:
                self.store(known)
        return self._blocked_by(build, own)

    def _blocked_by(self, build: BuildSummary, own: _Waiting) -> str:
        namespace, limits = build.namespace, self._limits
        level = self._running[namespace] + bisect_left(self._waiting.get(namespace, ()), own)
        if limits.namespace is not None and level >= limits.namespace:
            return f"at most {limits.namespace} runs of namespace {namespace} at the same time (concurrency.namespace)"
        if limits.cluster is not None:
            admitted = self._admitted()
            room = limits.cluster - self.running
            if room <= 0 or (len(admitted) == room and admitted[-1] < (level, own)):
                return f"at most {limits.cluster} runs of the cluster at the same time (concurrency.cluster)"
        return ""

    def _admitted(self) -> tuple[_Place, ...]:
        if self._next is None:
            room = None if self._limits.cluster is None else max(self._limits.cluster - self.running, 0)
            self._next = tuple(islice(self._order(), room))
        return self._next

    def _order(self) -> Iterable[_Place]:
        """Yield the places of those that wait, as if each that is taken went on running."""
        most = self._limits.namespace
        heap: list[tuple[int, _Waiting, int]] = [
            (self._running[namespace], queue[0], 0) for namespace, queue in self._waiting.items()
        ]
        heapify(heap)
        while heap:
            level, first, at = heappop(heap)
            if most is not None and level >= most:
                continue
            yield level, first
            queue = self._waiting[first[2]]
            if at + 1 < len(queue):
                heappush(heap, (level + 1, queue[at + 1], at + 1))


def _waiting(build: BuildSummary, since: datetime) -> _Waiting:
    return since, build.created_at, build.namespace, build.uid


def _counts(build: BuildSummary) -> tuple[object, ...]:
    """Return what of a build the order depends upon."""
    return build.namespace, build.created_at, build.running, build.waiting_since
