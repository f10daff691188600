"""BuildKit's progress, from `buildctl --progress=rawjson` to the lines of a build log.

The lines are those of `docker build --progress=plain`. Each line of rawjson is a SolveStatus of
https://github.com/moby/buildkit/blob/v0.32.2/client/graph.go
"""

import base64
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.results import CacheUse

_TAIL_LINES = 40
_TAIL_WIDTH = 1024
"""Characters of a line in the tail, its last: a step may print megabytes without a line break."""
_INSTRUCTION = re.compile(r"^\[(?!internal\])[^\]]*\d+/\d+\] (?!FROM )")
"""Name of a step that an instruction of the Dockerfile made; FROM is a pull, not a step that a cache could spare."""
_QUIET = ("transferring ", "resolve ", "sha256:", "extracting ", "preparing ", "writing ")
"""Statuses that only say that something moves."""
_CACHE = ("importing cache manifest from ", "exporting cache to ")
_RESUMED = ("exporting to image", "[internal]", "[1/", "importing ")
"""Steps that BuildKit completes and begins again."""

_NOTHING = StepCount(0, 0, 0)


@dataclass(slots=True)
class Vertex:
    """One step of the build."""

    name: str
    number: int = 0
    """In the log; 0 until it begins."""
    cached: bool = False
    error: str = ""
    started: datetime | None = None
    completed: bool = False
    partial: str = ""
    """Output after the last line break."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))

    @property
    def is_cache(self) -> bool:
        """Whether it reads or writes the registry cache, whose failure fails no build."""
        return self.name.startswith(_CACHE)


@dataclass(slots=True)
class Progress:
    """What is known of a running build."""

    vertexes: dict[str, Vertex] = field(default_factory=dict)
    begun: int = 0
    counted: StepCount = _NOTHING
    said: list[str] = field(default_factory=list)
    """What buildctl itself printed: where in the Dockerfile, and the error."""

    def feed(self, line: str) -> Iterator[str]:
        """Take one line of buildctl's standard error; yield the lines of the log that it makes."""
        try:
            status = json.loads(line) if line.startswith("{") else None
        except ValueError:
            status = None
        if not isinstance(status, dict):
            self.said.append(line)
            yield line
            return
        vertexes = status.get("vertexes", ())
        for entry in vertexes:
            yield from self._begin(entry)
        for entry in status.get("statuses", ()):
            yield from self._status(entry)
        for entry in status.get("logs", ()):
            yield from self._log(entry)
        for entry in status.get("warnings", ()):
            yield f"#{self._number(entry['vertex'])} WARN: {_decode(entry.get('short', ''))}"
        for entry in vertexes:
            yield from self._end(entry)
        if vertexes and (count := self._count()) != self.counted:
            self.counted = count
            yield str(count)

    @property
    def failed(self) -> Vertex | None:
        """The step that failed by itself; others end because of it."""
        failures = [vertex for vertex in self.vertexes.values() if vertex.error and not vertex.is_cache]
        return next((vertex for vertex in failures if not vertex.error.startswith("context canceled")), None)

    @property
    def cache(self) -> CacheUse:
        """How many of the Dockerfile's instructions came from the cache."""
        steps = self._steps()
        return CacheUse(hits=sum(vertex.cached for vertex in steps), total=len(steps))

    def _steps(self) -> list[Vertex]:
        return [vertex for vertex in self.vertexes.values() if _INSTRUCTION.match(vertex.name)]

    def _count(self) -> StepCount:
        steps = self._steps()
        done = sum(vertex.cached or vertex.completed for vertex in steps)
        return StepCount(done, len(steps), sum(vertex.cached for vertex in steps))

    def _known(self, digest: str, name: str = "") -> Vertex:
        return self.vertexes.setdefault(digest, Vertex(name))

    def _number(self, digest: str) -> int:
        """Number the steps in the order in which they begin; BuildKit lists them from the last to the first."""
        vertex = self._known(digest)
        if not vertex.number:
            self.begun += 1
            vertex.number = self.begun
        return vertex.number

    def _begin(self, entry: Mapping[str, Any]) -> Iterator[str]:
        vertex = self._known(entry["digest"], entry.get("name", ""))
        if (entry.get("started") or entry.get("cached")) and not vertex.number:
            yield f"#{self._number(entry['digest'])} {vertex.name}"
        vertex.started = vertex.started or _time(entry.get("started"))

    def _end(self, entry: Mapping[str, Any]) -> Iterator[str]:
        vertex, completed = self._known(entry["digest"]), _time(entry.get("completed"))
        vertex.completed = completed is not None and not entry.get("error")
        if entry.get("error"):
            vertex.error = entry["error"]
            yield from self._flush(vertex)
            yield f"#{vertex.number} {'WARN' if vertex.is_cache else 'ERROR'}: {vertex.error}"
        elif entry.get("cached") and not vertex.cached:
            vertex.cached = True
            yield f"#{vertex.number} CACHED"
        elif completed and vertex.started and not vertex.cached and not vertex.name.startswith(_RESUMED):
            yield from self._flush(vertex)
            yield f"#{vertex.number} DONE {(completed - vertex.started).total_seconds():.1f}s"

    def _status(self, entry: Mapping[str, Any]) -> Iterator[str]:
        started, completed = _time(entry.get("started")), _time(entry.get("completed"))
        if completed and started and not entry["id"].startswith(_QUIET):
            seconds = (completed - started).total_seconds()
            yield f"#{self._number(entry['vertex'])} {entry['id']} done {seconds:.1f}s"

    def _log(self, entry: Mapping[str, Any]) -> Iterator[str]:
        vertex = self._known(entry["vertex"])
        *lines, vertex.partial = (vertex.partial + _decode(entry.get("data", ""))).split("\n")
        at = _time(entry.get("timestamp"))
        since = (at - vertex.started).total_seconds() if at and vertex.started else 0.0
        for line in lines:
            text = line.rpartition("\r")[2] if not line.endswith("\r") else line.rstrip("\r")
            vertex.tail.append(text[-_TAIL_WIDTH:])
            yield f"#{vertex.number} {since:.3f} {text}"

    def _flush(self, vertex: Vertex) -> Iterator[str]:
        if vertex.partial:
            vertex.tail.append(vertex.partial[-_TAIL_WIDTH:])
            yield f"#{vertex.number} {vertex.partial}"
            vertex.partial = ""


def _decode(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")


def _time(text: str | None) -> datetime | None:
    # Go writes nanoseconds; Python reads any number of digits and keeps six.
    return datetime.fromisoformat(text) if text else None
