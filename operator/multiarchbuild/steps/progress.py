"""BuildKit's progress, from `buildctl --progress=rawjson` to the lines of a build log.

The lines are those of `docker build --progress=plain`. Each line of rawjson is a SolveStatus of
https://github.com/moby/buildkit/blob/v0.32.2/client/graph.go
"""

import base64
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from multiarchbuild.api.foreign import NonsenseError, parse_json
from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.results import CacheUse

_TAIL_LINES = 60
_TAIL_WIDTH = 1024
"""Characters of a line in the tail, its last: a step may print megabytes without a line break."""
_LINE_BYTES = 64 << 10
"""Output without a line break is taken for a line at this length: it is memory."""
_LONGEST = 64 << 20
"""Characters of a line of rawjson: a message of gRPC has 16 MiB at most."""
_INSTRUCTION = re.compile(r"^\[(?!internal\])(?:[^\]]*[^\]\d])?\d+/\d+\] (?!FROM )")
"""Name of a step that an instruction of the Dockerfile made; FROM is a pull, not a step that a cache could spare."""
_QUIET = ("transferring ", "resolve ", "sha256:", "extracting ", "preparing ", "writing ")
"""Statuses that only say that something moves."""
_CACHE = ("importing cache manifest from ", "exporting cache to ")
_EXPORTING = "exporting to image"
_RESUMED = (_EXPORTING, "[internal]", "[1/", "importing ")
"""Steps that BuildKit completes and begins again."""
_CANCELLED = "context canceled"
"""How the error of a step ends that BuildKit stopped because another one failed (solver/jobs.go)."""
_PREFIX = re.compile(r"^\[(\w+/[^\]\s]+) (?=\S)")
"""Platform before the name of a step in a build for several platforms (dockerfile2llb, prefixCommand)."""
_NEVER = datetime.max.replace(tzinfo=UTC)

_NOTHING = StepCount(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What BuildKit's checks found, such as `JSONArgsRecommended: JSON arguments … (line 3)`."""

    text: str
    line: int | None = None
    """Line of the Dockerfile, from 1."""
    url: str = ""
    """Page about the rule."""

    @property
    def rule(self) -> str:
        """Name of the rule, or all of the text where it has none."""
        return self.text.partition(":")[0]


@dataclass(slots=True)
class Vertex:
    """One step of the build."""

    name: str
    """As BuildKit names it, but without the platform where the build has only one."""
    platform: str = ""
    """Platform of the step, where BuildKit says it."""
    number: int = 0
    """In the log; 0 until it begins."""
    cached: bool = False
    error: str = ""
    started: datetime | None = None
    completed: datetime | None = None
    """When it ended, well or not; None while it runs."""
    began: datetime | None = None
    """When it began for the first time: BuildKit completes some steps and begins them again."""
    spans: dict[datetime, datetime] = field(default_factory=dict)
    """From when to when it was executed: there are several of what BuildKit began again."""
    inputs: tuple[str, ...] = ()
    """Digests of the steps that it builds on."""
    moved: dict[str, int] = field(default_factory=dict)
    """Bytes that it has moved, by what BuildKit calls each of them: the digest of a layer, `transferring context`."""
    partial: dict[int, bytes] = field(default_factory=dict)
    """Output after the last line break, by stream (1 or 2)."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))

    @property
    def is_cache(self) -> bool:
        """Whether it reads or writes the registry cache, whose failure fails no build."""
        return self.name.startswith(_CACHE)

    @property
    def is_instruction(self) -> bool:
        """Whether an instruction of the Dockerfile made it, and it is no pull."""
        return _INSTRUCTION.match(self.name) is not None

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started is not None and self.completed is None and not self.cached

    @property
    def was_cancelled(self) -> bool:
        """Whether BuildKit stopped it because another step failed."""
        return self.error.endswith(_CANCELLED)

    @property
    def last_lines(self) -> list[str]:
        """The end of its output, also where it has no line break yet."""
        return [*self.tail, *(_text(left)[-_TAIL_WIDTH:] for left in self.partial.values() if left)]


@dataclass(slots=True)
class Progress:
    """What is known of a running build."""

    only: str = ""
    """The platform that is built, where it is the only one: it is left out of the names of its steps."""
    vertexes: dict[str, Vertex] = field(default_factory=dict)
    begun: int = 0
    counted: StepCount = _NOTHING
    warnings: list[Finding] = field(default_factory=list)
    """What the checks of the Dockerfile found."""
    exporting: bool = False
    """Whether all is built: it is being made an image, and pushed."""
    said: list[str] = field(default_factory=list)
    """What buildctl itself printed: where in the Dockerfile, and the error."""

    def feed(self, line: str) -> Iterator[str]:
        """Take one line of buildctl's standard error; yield the lines of the log that it makes."""
        try:
            status = parse_json(line, "the line", largest=_LONGEST) if line.startswith("{") else None
        except NonsenseError:
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
            warning = _finding(entry)
            self.warnings.append(warning)
            yield f"#{self._number(entry['vertex'])} WARN: {warning.text}"
        for entry in vertexes:
            yield from self._end(entry)
        if vertexes and (count := self._count()) != self.counted:
            self.counted = count
            yield str(count)

    def failed(self, error: str) -> Vertex | None:
        """Return the step that failed the build with `error`, or None where no step did.

        When a step fails, BuildKit stops those that run beside it; their errors say so at the end. The one that counts
        is the one whose error the build's carries, whole or but for the words before it.
        """
        failures = [vertex for vertex in self.vertexes.values() if vertex.error and not vertex.is_cache]
        failures.sort(key=lambda vertex: (vertex.was_cancelled, vertex.completed or _NEVER))
        carried = (
            lambda vertex: error.endswith(vertex.error),
            lambda vertex: vertex.error.endswith(error),
            lambda vertex: vertex.error in error,
            lambda vertex: not vertex.was_cancelled,
        )
        return next((vertex for carries in carried for vertex in failures if carries(vertex)), None)

    @property
    def running(self) -> list[Vertex]:
        """The steps that have begun and not ended, instructions of the Dockerfile first, and those that began first."""
        running = [vertex for vertex in self.vertexes.values() if vertex.is_running and not vertex.is_cache]
        return sorted(running, key=lambda vertex: (_INSTRUCTION.match(vertex.name) is None, vertex.number))

    @property
    def cache(self) -> CacheUse:
        """How many of the Dockerfile's instructions came from the cache."""
        steps = self._steps()
        return CacheUse(hits=sum(vertex.cached for vertex in steps), total=len(steps))

    def _steps(self) -> list[Vertex]:
        return [vertex for vertex in self.vertexes.values() if _INSTRUCTION.match(vertex.name)]

    def _count(self) -> StepCount:
        steps = self._steps()
        done = sum(vertex.cached or (vertex.completed is not None and not vertex.error) for vertex in steps)
        return StepCount(done, len(steps), sum(vertex.cached for vertex in steps))

    def _known(self, digest: str, name: str = "") -> Vertex:
        if digest not in self.vertexes:
            match = _PREFIX.match(name)
            platform = match[1] if match else ""
            shown = name.replace(f"[{platform} ", "[", 1) if platform and platform == self.only else name
            self.vertexes[digest] = Vertex(shown, platform)
        return self.vertexes[digest]

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
            self.exporting |= vertex.name.startswith(_EXPORTING)
            yield f"#{self._number(entry['digest'])} {vertex.name}"
        vertex.inputs = vertex.inputs or tuple(entry.get("inputs") or ())
        vertex.started = vertex.started or _time(entry.get("started"))
        vertex.began = vertex.began or vertex.started

    def _end(self, entry: Mapping[str, Any]) -> Iterator[str]:
        vertex, completed = self._known(entry["digest"]), _time(entry.get("completed"))
        vertex.completed = completed
        if completed and (started := _time(entry.get("started"))):
            vertex.spans[started] = completed
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
        if moved := max(_count(entry, "current"), _count(entry, "total")):
            sizes = self._known(entry["vertex"]).moved
            sizes[entry["id"]] = max(moved, sizes.get(entry["id"], 0))
        if completed and started and not entry["id"].startswith(_QUIET):
            seconds = (completed - started).total_seconds()
            yield f"#{self._number(entry['vertex'])} {entry['id']} done {seconds:.1f}s"

    def _log(self, entry: Mapping[str, Any]) -> Iterator[str]:
        vertex, stream = self._known(entry["vertex"]), entry.get("stream", 1)
        # Bytes until a line is whole: a character may arrive in two parts.
        *lines, rest = (vertex.partial.get(stream, b"") + _decode(entry.get("data", ""))).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        vertex.partial[stream] = rest
        at = _time(entry.get("timestamp"))
        since = (at - vertex.started).total_seconds() if at and vertex.started else 0.0
        for line in lines:
            text = _text(line)
            vertex.tail.append(text[-_TAIL_WIDTH:])
            yield f"#{vertex.number} {since:.3f} {text}"

    def _flush(self, vertex: Vertex) -> Iterator[str]:
        for stream, left in vertex.partial.items():
            if left:
                vertex.tail.append(_text(left)[-_TAIL_WIDTH:])
                yield f"#{vertex.number} {_text(left)}"
                vertex.partial[stream] = b""


def _finding(entry: Mapping[str, Any]) -> Finding:
    """Return a warning (client.VertexWarning); its first range is where the rule is broken."""
    ranges: Sequence[Mapping[str, Any]] = entry.get("range") or ({},)
    line = (ranges[0].get("start") or {}).get("line")
    return Finding(
        _text(_decode(entry.get("short", ""))), line if isinstance(line, int) else None, entry.get("url", "")
    )


def _count(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _decode(data: str) -> bytes:
    return base64.b64decode(data)


def _text(line: bytes) -> str:
    """Return a line of output as a terminal would leave it: of what a carriage return overwrites, the last."""
    text = line.decode(errors="replace").rstrip("\r")
    return text.rpartition("\r")[2]


def _time(text: str | None) -> datetime | None:
    # Go writes nanoseconds; Python reads any number of digits and keeps six.
    return datetime.fromisoformat(text) if text else None
