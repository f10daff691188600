"""Waiting for what a cluster says, as it says it: nothing here polls or sleeps.

No test depends on how fast the machine is: it gives up only when nothing changes any more.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hack.target import Target

PATIENCE = 240.0
"""Seconds without any change after which a test gives up: several times what the slowest step takes on a slow machine.
It bounds how long a test hangs, and says nothing about how fast anything has to be."""
LONGEST = 780.0
"""Seconds after which a test gives up though things still change; pytest ends it at 900."""
T = TypeVar("T")
Objects = Mapping[str, dict[str, Any]]
"""The latest state of each object by its uid; what was deleted is not there."""


@dataclass(frozen=True)
class Change:
    """One event of a watch."""

    type: str
    """ADDED, MODIFIED or DELETED."""
    object: dict[str, Any]


class _Limit:
    """Ends a process that has printed nothing for some seconds, or goes on for much longer than that."""

    def __init__(self, process: "subprocess.Popen[str]", idle: float, longest: float) -> None:
        self._process, self._idle, self._end = process, idle, time.monotonic() + longest
        self._timer = self._start()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(max(0.0, min(self._idle, self._end - time.monotonic())), self._process.terminate)
        timer.daemon = True
        timer.start()
        return timer

    def renew(self) -> None:
        """Count from now on: something has happened."""
        self.cancel()
        self._timer = self._start()

    def cancel(self) -> None:
        """Let the process go on."""
        self._timer.cancel()


@contextmanager
def _lines(target: Target, *argv: str, idle: float, longest: float) -> Iterator[Iterator[str]]:
    """Yield the lines that a program prints, until it is silent for `idle` seconds or `longest` are over."""
    with subprocess.Popen(argv, env=target.environment, stdout=subprocess.PIPE, text=True) as process:
        limit = _Limit(process, idle, longest)

        def lines() -> Iterator[str]:
            assert process.stdout is not None
            for line in process.stdout:
                limit.renew()
                yield line

        try:
            yield lines()
        finally:
            limit.cancel()
            process.terminate()


@contextmanager
def watching(
    target: Target, *what: str, seconds: float = PATIENCE, longest: float = LONGEST
) -> Iterator[Iterator[Change]]:
    """Yield the changes of `what` (arguments of kubectl get), what exists first, until there are none for `seconds`."""
    command = ("kubectl", "get", *what, "--watch", "--output-watch-events", "-o", "json")
    with _lines(target, *command, idle=seconds, longest=longest) as lines:
        # An event a line, not indented as kubectl prints objects elsewhere.
        yield (Change(change["type"], change["object"]) for change in map(json.loads, lines))


def wait_for(
    target: Target,
    *what: str,
    until: Callable[[Objects], T | None],
    seconds: float = PATIENCE,
    longest: float = LONGEST,
    why: str = "",
) -> T:
    """Return the first true value that `until` gives for the objects that `what` (of kubectl get) names.

    It is asked again after each change; a watch that finds nothing asks nobody. It fails when nothing has changed for
    `seconds`: as long as there is progress, a slow machine only takes longer, up to `longest` seconds.
    """
    started = time.monotonic()
    objects: dict[str, dict[str, Any]] = {}
    with watching(target, *what, seconds=seconds, longest=longest) as changes:
        for change in changes:
            uid = change.object["metadata"]["uid"]
            if change.type == "DELETED":
                objects.pop(uid, None)
            else:
                objects[uid] = change.object
            if value := until(objects):
                return value
    last = json.dumps([entry.get("status") for entry in objects.values()], indent=1)
    took = time.monotonic() - started
    raise AssertionError(f"not within {took:.0f} s: {why or ' '.join(what)}; last seen: {last}")


def gone(target: Target, *what: str, seconds: float = PATIENCE) -> None:
    """Wait until there is nothing any more that `what` (of kubectl get) names."""
    target.kubectl("wait", *what, "--for=delete", f"--timeout={seconds:.0f}s")


_FOR_EVER = 24 * 3600.0


@dataclass
class Recorder:
    """Remembers every object that a watch ever showed, by uid, and each of their changes."""

    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def named(self) -> list[str]:
        """Return the names of all, the first seen first; an object that was made again is there twice."""
        return [entry["metadata"]["name"] for entry in self.seen.values()]


@contextmanager
def recording(target: Target, *what: str) -> Iterator[Recorder]:
    """Record in the background what `what` (of kubectl get) shows, until the block ends."""
    recorder = Recorder()
    with watching(target, *what, seconds=_FOR_EVER, longest=_FOR_EVER) as changes:

        def record() -> None:
            for change in changes:
                recorder.seen[change.object["metadata"]["uid"]] = change.object
                recorder.changes.append(change)

        thread = threading.Thread(target=record, daemon=True)
        thread.start()
        yield recorder


def following(target: Target, *what: str, seconds: float = PATIENCE) -> Iterator[str]:
    """Yield the lines of a log (arguments of kubectl logs) as they come, until it ends or is silent for `seconds`."""
    with _lines(target, "kubectl", "logs", "--follow", *what, idle=seconds, longest=LONGEST) as lines:
        yield from lines
