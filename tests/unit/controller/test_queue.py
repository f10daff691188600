"""The keyed queue, with time that the test moves."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from multiarchbuild.controller.queue import FIRST_RETRY, LONGEST_RETRY, KeyedQueue, Taken

Key = tuple[str, str]


@dataclass
class Time:
    """Time that stands still until it is moved."""

    now: float = 0.0
    _timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _cancelled: set[int] = field(default_factory=set)
    _ids: "count[int]" = field(default_factory=count)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "Cancel":
        number = next(self._ids)
        heapq.heappush(self._timers, (self.now + seconds, number, callback))
        return Cancel(self._cancelled, number)

    def move(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, number, callback = heapq.heappop(self._timers)
            if number not in self._cancelled:
                callback()
        self.now = end


@dataclass
class Cancel:
    cancelled: set[int]
    number: int

    def cancel(self) -> None:
        self.cancelled.add(self.number)


def queue_at(time: Time, jitter: float = 1.0) -> KeyedQueue[Key]:
    return KeyedQueue(
        group=lambda key: key[0], call_later=time.call_later, clock=lambda: time.now, jitter=lambda: jitter
    )


def take(queue: KeyedQueue[Key]) -> Taken[Key] | None:
    """Return the next key, or None when a worker would have to wait."""
    if not len(queue):
        return None
    with pytest.raises(StopIteration) as returned:
        queue.get().send(None)
    taken: Taken[Key] = returned.value.value
    return taken


def taken_keys(queue: KeyedQueue[Key]) -> list[Key]:
    keys = []
    while (taken := take(queue)) is not None:
        keys.append(taken.key)
    return keys


def test_a_key_added_many_times_comes_once() -> None:
    queue = queue_at(Time())
    for _ in range(5):
        queue.add(("a", "x"))
    assert len(queue) == 1
    assert taken_keys(queue) == [("a", "x")]


def test_a_key_that_is_worked_on_comes_again_when_it_is_given_back() -> None:
    queue = queue_at(Time())
    queue.add(("a", "x"))
    assert take(queue)
    queue.add(("a", "x"))
    queue.add(("a", "x"))
    assert take(queue) is None
    queue.done(("a", "x"))
    assert taken_keys(queue) == [("a", "x")]


def test_namespaces_take_turns() -> None:
    queue = queue_at(Time())
    for name in "1234":
        queue.add(("big", name))
    queue.add(("small", "1"))
    queue.add(("other", "1"))
    assert taken_keys(queue) == [
        ("big", "1"),
        ("small", "1"),
        ("other", "1"),
        ("big", "2"),
        ("big", "3"),
        ("big", "4"),
    ]


def test_waiting_time_is_told() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add(("a", "x"))
    time.move(3)
    queue.add(("a", "x"))
    taken = take(queue)
    assert taken is not None
    assert taken.waited == 3


def test_later_means_later_and_the_last_call_counts() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add_after(("a", "x"), 5)
    queue.add_after(("a", "x"), 10)
    time.move(9)
    assert take(queue) is None
    time.move(1)
    assert taken_keys(queue) == [("a", "x")]


def test_an_event_makes_the_timer_needless() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add_after(("a", "x"), 5)
    queue.add(("a", "x"))
    assert taken_keys(queue) == [("a", "x")]
    queue.done(("a", "x"))
    time.move(60)
    assert take(queue) is None


def test_no_delay_is_now() -> None:
    queue = queue_at(Time())
    queue.add_after(("a", "x"), 0)
    assert taken_keys(queue) == [("a", "x")]


def test_retries_back_off_to_a_limit_until_forgotten() -> None:
    queue = queue_at(Time())
    delays = [queue.retry(("a", "x")) for _ in range(40)]
    assert delays[:4] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY, 8 * FIRST_RETRY]
    assert delays[-1] == LONGEST_RETRY
    assert queue.retry(("b", "x")) == FIRST_RETRY, "each key for itself"
    queue.forget(("a", "x"))
    assert queue.retry(("a", "x")) == FIRST_RETRY


def test_retries_are_spread_and_respect_what_the_server_asked_for() -> None:
    assert queue_at(Time(), jitter=0.0).retry(("a", "x")) == FIRST_RETRY / 2
    assert queue_at(Time()).retry(("a", "x"), at_least=7) == 7


async def test_stop_waits_for_the_keys_that_are_worked_on_and_hands_out_no_more() -> None:
    queue = queue_at(Time())
    queue.add(("a", "x"))
    queue.add(("a", "y"))
    taken = await queue.get()
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(taken.key)
    await stopping
    assert not waiting.done()
    waiting.cancel()


async def test_a_worker_that_is_cancelled_while_it_waits_loses_no_key() -> None:
    queue = queue_at(Time())
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(("a", "x"))
    waiting.cancel()
    await asyncio.wait({waiting})
    assert (await asyncio.wait_for(queue.get(), 1)).key == ("a", "x")


KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))


class QueueMachine(RuleBasedStateMachine):
    """Whatever is added is taken afterwards, by one worker at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.queue = queue_at(self.time)
        self.owed: set[Key] = set()
        self.timers: dict[Key, float] = {}
        self.working: set[Key] = set()

    @rule(key=KEYS)
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(key=KEYS, seconds=st.integers(1, 20))
    def add_after(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.timers[key] = self.time.now + seconds

    @rule(seconds=st.integers(1, 10))
    def move(self, seconds: int) -> None:
        self.time.move(seconds)
        due = {key for key, at in self.timers.items() if at <= self.time.now}
        self.owed |= due
        self.timers = {key: at for key, at in self.timers.items() if key not in due}

    @rule()
    def take(self) -> None:
        taken = take(self.queue)
        if taken is None:
            assert self.owed <= self.working
            return
        assert taken.key in self.owed
        assert taken.key not in self.working
        self.owed.remove(taken.key)
        self.timers.pop(taken.key, None)
        self.working.add(taken.key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)

    @invariant()
    def ready_is_what_is_owed_and_not_worked_on(self) -> None:
        assert len(self.queue) == len(self.owed - self.working)


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
