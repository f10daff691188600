"""Waiting for what a cluster says, as it says it: nothing here polls or sleeps."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hack.target import Target

T = TypeVar("T")
Objects = Mapping[str, dict[str, Any]]
"""The latest state of each object by its uid; what was deleted is not there."""


@dataclass(frozen=True)
class Change:
    """One event of a watch."""

    type: str
    """ADDED, MODIFIED or DELETED."""
    object: dict[str, Any]


@contextmanager
def watching(target: Target, *what: str, seconds: float) -> Iterator[Iterator[Change]]:
    """Yield the changes of `what` (arguments of kubectl get), what exists first, until `seconds` are over."""
    command = ["kubectl", "get", *what, "--watch", "--output-watch-events", "-o", "json"]
    with subprocess.Popen(command, env=target.environment, stdout=subprocess.PIPE, text=True) as process:
        limit = threading.Timer(seconds, process.terminate)
        limit.start()
        try:
            yield _changes(process)
        finally:
            limit.cancel()
            process.terminate()


def _changes(process: "subprocess.Popen[str]") -> Iterator[Change]:
    assert process.stdout is not None
    for line in process.stdout:  # an event a line, not indented as kubectl prints objects elsewhere
        change = json.loads(line)
        yield Change(change["type"], change["object"])


def wait_for(
    target: Target, *what: str, until: Callable[[Objects], T | None], seconds: float = 120, why: str = ""
) -> T:
    """Return the first true value that `until` gives for the objects that `what` (of kubectl get) names.

    It is asked again after each change; a watch that finds nothing asks nobody.
    """
    objects: dict[str, dict[str, Any]] = {}
    with watching(target, *what, seconds=seconds) as changes:
        for change in changes:
            uid = change.object["metadata"]["uid"]
            if change.type == "DELETED":
                objects.pop(uid, None)
            else:
                objects[uid] = change.object
            if value := until(objects):
                return value
    last = json.dumps([entry.get("status") for entry in objects.values()], indent=1)
    raise AssertionError(f"not within {seconds:.0f} s: {why or ' '.join(what)}; last seen: {last}")


def gone(target: Target, *what: str, seconds: float = 60) -> None:
    """Wait until there is nothing any more that `what` (of kubectl get) names."""
    target.kubectl("wait", *what, "--for=delete", f"--timeout={seconds:.0f}s")


@dataclass
class Recorder:
    """Remembers every object that a watch ever showed, by uid, and each of their changes."""

    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def named(self) -> list[str]:
        """Return the names of all, the first seen first; an object that was made again is there twice."""
        return [entry["metadata"]["name"] for entry in self.seen.values()]


@contextmanager
def recording(target: Target, *what: str, seconds: float = 600) -> Iterator[Recorder]:
    """Record in the background what `what` (of kubectl get) shows, until the block ends."""
    recorder = Recorder()
    with watching(target, *what, seconds=seconds) as changes:

        def record() -> None:
            for change in changes:
                recorder.seen[change.object["metadata"]["uid"]] = change.object
                recorder.changes.append(change)

        thread = threading.Thread(target=record, daemon=True)
        thread.start()
        yield recorder


def following(target: Target, *what: str, seconds: float) -> Iterator[str]:
    """Yield the lines of a log (arguments of kubectl logs) as they come, until it ends or `seconds` are over."""
    command = ["kubectl", "logs", "--follow", *what]
    with subprocess.Popen(command, env=target.environment, stdout=subprocess.PIPE, text=True) as process:
        limit = threading.Timer(seconds, process.terminate)
        limit.start()
        try:
            assert process.stdout is not None
            yield from process.stdout
        finally:
            limit.cancel()
            process.terminate()
