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


def failed(queue: KeyedQueue[Key], key: Key, seconds: float) -> None:
    """Take a key and give it back as one that failed."""
    queue.add(key)
    assert take(queue)
    queue.retry(key, at_least=seconds)
    queue.done(key)


def test_an_event_does_not_shorten_a_back_off() -> None:
    time = Time()
    queue = queue_at(time)
    failed(queue, ("a", "x"), 60)
    for _ in range(59):
        queue.add(("a", "x"))
        time.move(1)
        assert taken_keys(queue) == []
    time.move(1)
    assert taken_keys(queue) == [("a", "x")]


def test_an_event_during_the_look_that_fails_does_not_shorten_its_back_off() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add(("a", "x"))
    assert take(queue)
    queue.add(("a", "x"))
    queue.retry(("a", "x"), at_least=60)
    queue.done(("a", "x"))
    assert taken_keys(queue) == []
    time.move(60)
    assert taken_keys(queue) == [("a", "x")]


@pytest.mark.parametrize("during_the_look", [True, False])
def test_what_is_urgent_overrides_a_back_off(during_the_look: bool) -> None:  # noqa: FBT001
    queue = queue_at(Time())
    queue.add(("a", "x"))
    assert take(queue)
    if during_the_look:
        queue.add(("a", "x"), urgent=True)
        queue.add(("a", "x"))
    queue.retry(("a", "x"), at_least=60)
    queue.done(("a", "x"))
    if not during_the_look:
        queue.add(("a", "x"), urgent=True)
    assert taken_keys(queue) == [("a", "x")]
    assert queue.retry(("a", "x")) == FIRST_RETRY, "it begins from the start again"


def test_the_oldest_key_tells_how_far_behind_the_workers_are() -> None:
    time = Time()
    queue = queue_at(time)
    assert queue.oldest == 0
    queue.add(("a", "x"))
    time.move(5)
    queue.add(("b", "y"))
    assert (len(queue), queue.oldest) == (2, 5)
    assert take(queue)
    assert (len(queue), queue.oldest) == (1, 0)


KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))


class QueueMachine(RuleBasedStateMachine):
    """Whatever is added is taken afterwards, by one worker at a time, and not before its back-off is over."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.queue = queue_at(self.time)
        self.owed: set[Key] = set()
        self.urgent: set[Key] = set()
        self.timers: dict[Key, float] = {}
        self.soon: dict[Key, int] = {}
        self.not_before: dict[Key, float] = {}
        self.working: set[Key] = set()

    def ready(self) -> set[Key]:
        return {key for key in self.owed - self.working if self.not_before.get(key, 0) <= self.time.now}

    @rule(key=KEYS)
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(key=KEYS)
    def add_urgent(self, key: Key) -> None:
        self.queue.add(key, urgent=True)
        self.owed.add(key)
        if key in self.working:
            self.urgent.add(key)
        else:
            self.not_before.pop(key, None)

    @rule(key=KEYS, seconds=st.integers(1, 200))
    def add_after(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        if self.not_before.get(key, 0) > self.time.now:
            self.timers.pop(key, None)
            self.owed.add(key)
        else:
            self.timers[key] = self.time.now + seconds

    @rule(key=KEYS, seconds=st.integers(1, 200))
    def add_within(self, key: Key, seconds: int) -> None:
        self.queue.add_within(key, seconds)
        if key in self.working:
            self.soon[key] = min(seconds, self.soon.get(key, seconds))
        else:
            self._within(key, seconds)

    def _within(self, key: Key, seconds: int) -> None:
        if key not in self.ready():
            at = max(self.time.now + seconds, self.not_before.get(key, 0))
            self.timers[key] = min(at, self.timers.get(key, at))

    # Longer than the longest of the queue's own, so that the model needs none of its rules.
    @precondition(lambda self: self.working)
    @rule(data=st.data(), seconds=st.integers(int(LONGEST_RETRY), 2 * int(LONGEST_RETRY)))
    def fail(self, data: st.DataObject, seconds: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        assert self.queue.retry(key, at_least=seconds) == seconds
        self.timers[key] = self.not_before[key] = self.time.now + seconds

    @rule(seconds=st.integers(1, 100))
    def move(self, seconds: int) -> None:
        self.time.move(seconds)
        due = {key for key, at in self.timers.items() if at <= self.time.now}
        self.owed |= due
        self.timers = {key: at for key, at in self.timers.items() if key not in due}

    @rule()
    def take(self) -> None:
        taken = take(self.queue)
        if taken is None:
            assert not self.ready()
            return
        assert taken.key in self.ready()
        self.owed.remove(taken.key)
        self.timers.pop(taken.key, None)
        self.not_before.pop(taken.key, None)
        self.working.add(taken.key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)
        soon = self.soon.pop(key, None)
        if key in self.urgent:
            self.urgent.remove(key)
            self.not_before.pop(key, None)
        if soon is not None and key not in self.owed:
            self._within(key, soon)

    @invariant()
    def ready_is_what_is_owed_and_neither_worked_on_nor_backing_off(self) -> None:
        assert len(self.queue) == len(self.ready())


QueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestQueueMachine = QueueMachine.TestCase


KEY = ("a", "x")


def test_what_has_begun_goes_before_what_has_not_and_namespaces_still_take_turns() -> None:
    time, begun = Time(), {("a", "2"), ("b", "1"), ("a", "3")}
    queue = KeyedQueue[Key](
        group=lambda key: key[0],
        call_later=time.call_later,
        clock=lambda: time.now,
        begun=lambda key: key in begun,
    )
    for key in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("c", "1")]:
        queue.add(key)
    order = []
    while (taken := take(queue)) is not None:
        order.append(taken.key)
        queue.done(taken.key)
    assert order == [("a", "2"), ("b", "1"), ("a", "3"), ("a", "1"), ("c", "1")]


def test_what_can_wait_a_moment_is_looked_at_together() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add_after(KEY, 3600)
    queue.add_within(KEY, 0.5)
    time.move(0.3)
    queue.add_within(KEY, 0.5)
    assert take(queue) is None, "it does not come before"
    time.move(0.2)
    assert take(queue) == Taken(KEY, 0.0), "nor later for the second time"
    queue.add_within(KEY, 0.5)
    queue.add_after(KEY, 3600)
    queue.done(KEY)
    time.move(0.5)
    assert take(queue) is not None, "what comes during a look is not lost with the timer that the look sets"
    queue.done(KEY)
    queue.add_within(KEY, 0.5)
    queue.add(KEY)
    assert take(queue) is not None
    queue.done(KEY)
    time.move(60)
    assert take(queue) is None, "it was looked at meanwhile"


def test_what_can_wait_a_moment_does_not_shorten_a_back_off() -> None:
    time = Time()
    queue = queue_at(time)
    queue.add(KEY)
    assert take(queue)
    delay = queue.retry(KEY, at_least=10)
    queue.add_within(KEY, 0.5)
    queue.done(KEY)
    time.move(delay - 0.1)
    assert take(queue) is None
    time.move(0.1)
    assert take(queue)
