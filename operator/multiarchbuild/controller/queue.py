"""A queue of keys that says what to look at, never what has happened.

A key is in the queue at most once, is worked on by at most one worker, and is never lost: added while it is
worked on, it comes again. Groups (namespaces) take turns, so that one with a thousand keys does not hold up
another with one. What has begun goes before what has not: of a thousand builds that come at once, the first is done
before the last is started, and no worker starts what it has no time to end.

A key that failed has a time before which it is not handed out: what is added meanwhile waits until then, or else an
object whose every look causes an event would be looked at without end. Only an urgent addition overrides it.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)

FIRST_RETRY: Final = 0.2
"""Seconds to the first retry, before jitter; each further one takes twice as long."""
LONGEST_RETRY: Final = 120.0
"""Seconds that a retry is put off at most."""


class Timer(Protocol):
    """What `call_later` of an event loop returns."""

    def cancel(self) -> None:
        """Let it not happen."""


CallLater = Callable[[float, Callable[[], None]], Timer]


@dataclass(frozen=True, slots=True)
class Taken(Generic[KeyT]):
    """A key to work on; `KeyedQueue.done` gives it back."""

    key: KeyT
    waited: float
    """Seconds since it was added."""


class KeyedQueue(Generic[KeyT]):
    """See the module. Not thread-safe: all calls come from one event loop."""

    def __init__(
        self,
        *,
        group: Callable[[KeyT], Hashable],
        call_later: CallLater,
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
        begun: Callable[[KeyT], bool] = lambda _: False,
    ) -> None:
        """Make an empty queue.

        Args:
            group: Which keys take turns with which others.
            call_later: `loop.call_later`.
            clock: `loop.time`, in seconds.
            jitter: Returns a number from 0 to 1; a retry takes between half and all of its nominal delay.
            begun: Whether a key goes before those for which this is false.
        """
        self._group, self._call_later, self._clock, self._jitter = group, call_later, clock, jitter
        self._begun = begun
        self._first, self._last = _Ready[KeyT](), _Ready[KeyT]()
        self._permits = asyncio.Semaphore(0)  # one for each ready key
        self._working: dict[KeyT, float] = {}
        self._again: dict[KeyT, bool] = {}  # added while it is worked on, and whether that is urgent
        self._soon: dict[KeyT, float] = {}  # likewise, and within how many seconds it is to be looked at again
        self._timers: dict[KeyT, _Scheduled] = {}
        self._failures: dict[KeyT, int] = {}
        self._not_before: dict[KeyT, float] = {}
        self._stopping = False
        self._given_back = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._first) + len(self._last)

    def add(self, key: KeyT, *, urgent: bool = False) -> None:
        """Have a worker look at `key` soon: once its back-off is over, or, if it is `urgent`, at once."""
        if key in self._working:
            self._again[key] = urgent or self._again.get(key, False)
            return
        if urgent:
            self.forget(key)
        elif self._backs_off(key):
            if key not in self._timers:
                self._schedule(key, self._not_before[key])
            return
        if key in self._first or key in self._last:
            return
        (self._first if self._begun(key) else self._last).add(self._group(key), key, self._clock())
        self._permits.release()

    def add_within(self, key: KeyT, seconds: float) -> None:
        """Have a worker look at `key` in `seconds` at the latest: what else comes until then is looked at with it."""
        if seconds <= 0:
            self.add(key)
        elif key in self._working:
            self._soon[key] = min(seconds, self._soon.get(key, seconds))
        elif key not in self._first and key not in self._last:
            at = self._clock() + seconds
            if key not in self._timers or self._timers[key].at > at:
                self._schedule(key, max(at, self._not_before.get(key, at)))

    def add_after(self, key: KeyT, seconds: float) -> None:
        """Have a worker look at `key` in `seconds`, unless it does before. The last call counts.

        A key that backs off comes when that is over: nothing is known of it that could wait for longer.
        """
        self._unschedule(key)
        if seconds <= 0 or self._backs_off(key):
            self.add(key)
        else:
            self._schedule(key, self._clock() + seconds)

    def retry(self, key: KeyT, *, at_least: float = 0.0) -> float:
        """Have a worker look at `key` again, later after each failure in a row. Returns the seconds.

        Nothing but an urgent addition brings it back before.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        nominal = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 32))
        delay = max(at_least, nominal * (0.5 + self._jitter() / 2))
        self._not_before[key] = self._clock() + delay
        self._schedule(key, self._not_before[key])
        return delay

    def forget(self, key: KeyT) -> None:
        """Count the failures of `key` from zero again; its back-off is over."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)

    async def get(self) -> Taken[KeyT]:
        """Wait for a key that nobody works on. Its timer is dropped: it is looked at now."""
        await self._permits.acquire()
        if self._stopping:
            await asyncio.Future()  # until its worker is cancelled
        key, added = (self._first or self._last).take()
        self._unschedule(key)
        self._not_before.pop(key, None)
        now = self._clock()
        self._working[key] = now
        return Taken(key, now - added)

    def done(self, key: KeyT) -> None:
        """Give back a key from `get`."""
        del self._working[key]
        self._given_back.set()
        self._given_back.clear()
        soon = self._soon.pop(key, None)
        if key in self._again:
            self.add(key, urgent=self._again.pop(key))
        elif soon is not None:
            self.add_within(key, soon)

    async def stop(self) -> None:
        """Hand out no more keys, and wait until none is worked on."""
        self._stopping = True
        while self._working:
            await self._given_back.wait()

    @property
    def longest_work(self) -> float:
        """Seconds for which the slowest worker has been at its key."""
        return self._clock() - min(self._working.values(), default=self._clock())

    @property
    def oldest(self) -> float:
        """Seconds for which the key that has waited the longest waits for a worker."""
        return self._clock() - min(self._first.oldest, self._last.oldest, self._clock())

    def _backs_off(self, key: KeyT) -> bool:
        return self._not_before.get(key, 0.0) > self._clock()

    def _schedule(self, key: KeyT, at: float) -> None:
        def due() -> None:
            del self._timers[key]
            # Event loops may call a little early: what was put off until now comes now.
            self._not_before.pop(key, None)
            self.add(key)

        self._unschedule(key)
        self._timers[key] = _Scheduled(at, self._call_later(at - self._clock(), due))

    def _unschedule(self, key: KeyT) -> None:
        scheduled = self._timers.pop(key, None)
        if scheduled is not None:
            scheduled.timer.cancel()


class _Scheduled(NamedTuple):
    """When a key is added."""

    at: float
    timer: Timer


class _Ready(Generic[KeyT]):
    """Keys that wait for a worker, in groups that take turns."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, OrderedDict[KeyT, float]] = OrderedDict()
        self._keys: set[KeyT] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: KeyT) -> bool:
        return key in self._keys

    def add(self, group: Hashable, key: KeyT, now: float) -> None:
        """Add a key that is not there yet."""
        self._groups.setdefault(group, OrderedDict())[key] = now
        self._keys.add(key)

    def take(self) -> tuple[KeyT, float]:
        """Remove the next key; return it, and when it was added."""
        group, keys = next(iter(self._groups.items()))
        key, added = keys.popitem(last=False)
        self._keys.remove(key)
        self._groups.move_to_end(group)
        if not keys:
            del self._groups[group]
        return key, added

    @property
    def oldest(self) -> float:
        """When the key that has waited the longest was added; infinite where none waits."""
        return min((next(iter(keys.values())) for keys in self._groups.values()), default=inf)
