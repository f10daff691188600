"""A queue of keys that says what to look at, never what has happened.

A key is in the queue at most once, is worked on by at most one worker, and is never lost: added while it is
worked on, it comes again. Groups (namespaces) take turns, so that one with a thousand keys does not hold up
another with one.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

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
    ) -> None:
        """Make an empty queue.

        Args:
            group: Which keys take turns with which others.
            call_later: `loop.call_later`.
            clock: `loop.time`, in seconds.
            jitter: Returns a number from 0 to 1; a retry takes between half and all of its nominal delay.
        """
        self._group, self._call_later, self._clock, self._jitter = group, call_later, clock, jitter
        self._ready: OrderedDict[Hashable, OrderedDict[KeyT, float]] = OrderedDict()
        self._permits = asyncio.Semaphore(0)  # one for each ready key
        self._working: dict[KeyT, float] = {}
        self._again: set[KeyT] = set()
        self._timers: dict[KeyT, Timer] = {}
        self._failures: dict[KeyT, int] = {}
        self._stopping = False
        self._given_back = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return sum(len(keys) for keys in self._ready.values())

    def add(self, key: KeyT) -> None:
        """Have a worker look at `key` soon."""
        if key in self._working:
            self._again.add(key)
            return
        keys = self._ready.setdefault(self._group(key), OrderedDict())
        if key not in keys:
            keys[key] = self._clock()
            self._permits.release()

    def add_after(self, key: KeyT, seconds: float) -> None:
        """Have a worker look at `key` in `seconds`, unless it does before. The last call counts."""
        self._cancel_timer(key)
        if seconds <= 0:
            self.add(key)
            return

        def due() -> None:
            self._timers.pop(key, None)
            self.add(key)

        self._timers[key] = self._call_later(seconds, due)

    def retry(self, key: KeyT, *, at_least: float = 0.0) -> float:
        """Have a worker look at `key` again, later after each failure in a row. Returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        nominal = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 32))
        delay = max(at_least, nominal * (0.5 + self._jitter() / 2))
        self.add_after(key, delay)
        return delay

    def forget(self, key: KeyT) -> None:
        """Count the failures of `key` from zero again."""
        self._failures.pop(key, None)

    async def get(self) -> Taken[KeyT]:
        """Wait for a key that nobody works on. Its timer is dropped: it is looked at now."""
        await self._permits.acquire()
        if self._stopping:
            await asyncio.Future()  # until its worker is cancelled
        group, keys = next(iter(self._ready.items()))
        key, added = keys.popitem(last=False)
        self._ready.move_to_end(group)
        if not keys:
            del self._ready[group]
        self._cancel_timer(key)
        now = self._clock()
        self._working[key] = now
        return Taken(key, now - added)

    def done(self, key: KeyT) -> None:
        """Give back a key from `get`."""
        del self._working[key]
        self._given_back.set()
        self._given_back.clear()
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    async def stop(self) -> None:
        """Hand out no more keys, and wait until none is worked on."""
        self._stopping = True
        while self._working:
            await self._given_back.wait()

    @property
    def longest_work(self) -> float:
        """Seconds for which the slowest worker has been at its key."""
        return self._clock() - min(self._working.values(), default=self._clock())

    def _cancel_timer(self, key: KeyT) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
