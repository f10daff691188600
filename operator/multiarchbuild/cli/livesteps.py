"""The steps of a build as its log tells them, for runs that go on and for those whose record cannot be read.

Each line comes with the time at which the kubelet took it, to the nanosecond: a step began when its name was printed.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from multiarchbuild.api.answers import TAKEN, is_answer
from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.record import BuilderRecord, StepRecord
from multiarchbuild.api.results import CacheUse

_LINE = re.compile(r"#(\d{1,6}) (.*)", re.DOTALL)
_SAID = re.compile(r"\d+\.\d{3} ")
"""What stands before output of a step: the seconds since it began."""
_DONE = re.compile(r"DONE (\d+\.\d)s")
_MOST = 2000
"""Steps of one log: it may print what it likes."""
_NAME = 240


@dataclass(slots=True)
class _Step:
    name: str
    began: datetime
    ended: datetime | None = None
    cached: bool = False
    error: str = ""


@dataclass(slots=True)
class LiveSteps:
    """What the log of one builder has told so far."""

    count: StepCount | None = None
    _steps: dict[int, _Step] = field(default_factory=dict)
    _last: datetime | None = None

    def feed(self, stamp: str, text: str) -> None:
        """Take one line with its time (RFC 3339)."""
        if is_answer(text):
            if text.endswith(TAKEN):
                # A kept builder has begun with another build.
                self._steps.clear()
                self.count = self._last = None
            return
        if count := StepCount.parse(text):
            self.count = count
            return
        match = _LINE.fullmatch(text)
        if match is not None and not _SAID.match(match[2]):
            with suppress(ValueError):
                self._take(datetime.fromisoformat(stamp), int(match[1]), match[2])

    def _take(self, at: datetime, number: int, said: str) -> None:
        step = self._steps.get(number)
        if step is None:
            if len(self._steps) < _MOST:
                self._end_silent(at)
                self._steps[number] = _Step(said[:_NAME], at)
        elif said == "CACHED":
            step.cached, step.ended = True, at
        elif _DONE.fullmatch(said):
            step.ended = at
        elif said.startswith("ERROR: "):
            step.error, step.ended = said.removeprefix("ERROR: ")[:_NAME], at
        self._last = at

    def _end_silent(self, at: datetime) -> None:
        """End the steps whose end BuildKit never says once an instruction begins: it has what they were for."""
        for step in self._steps.values():
            if step.ended is None and (step.name.startswith(("[internal]", "importing ")) or "] FROM " in step.name):
                step.ended = at

    def record(self, platforms: Sequence[str], now: datetime | None = None) -> BuilderRecord:
        """Return it as a record; what has not ended goes on until `now`, or until the last line where that is None."""
        known = list(self._steps.values())
        began = min((step.began for step in known), default=None)
        end = now or self._last
        steps = tuple(
            StepRecord(
                name=step.name,
                at=(step.began - began).total_seconds() if began else None,
                seconds=_between(step.began, step.ended or end),
                cached=step.cached,
                error=step.error,
            )
            for step in known[:_MOST]
        )
        cache = CacheUse(hits=self.count.cached, total=self.count.total) if self.count else CacheUse(hits=0, total=0)
        return BuilderRecord.model_construct(
            platforms=tuple(platforms), began_at=began, steps=steps, cache=cache, phases={}, warnings=(), materials=()
        )

    def running(self) -> frozenset[str]:
        """Return the names of the steps that have begun and not ended."""
        return frozenset(step.name for step in self._steps.values() if step.ended is None)


def _between(start: datetime, end: datetime | None) -> float:
    return max((end - start).total_seconds(), 0.0) if end else 0.0
