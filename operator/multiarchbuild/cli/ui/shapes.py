"""What the page draws, as plain values: positions are in thousandths of a width that all platforms share."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from multiarchbuild.api.record import BuilderRecord, BuildRecord, StepRecord
from multiarchbuild.cli.resource import Build, seconds
from multiarchbuild.plan.compare import key

WIDE: Final = 1000
_THIN: Final = 4
"""Least width of a bar: what took no time is to be seen."""
_PHASES: Final = ("queue", "resolve", "schedule", "pull", "start", "build", "publish")


@dataclass(frozen=True, slots=True)
class Cell:
    """A step as one platform executed it."""

    x: int
    width: int
    state: str
    """ran, cached, failed, running or waits."""
    seconds: float
    why: str
    because: str
    error: str
    bytes: int
    name: str
    waits_for: tuple[str, ...]
    """Names of the steps that it builds on."""


@dataclass(frozen=True, slots=True)
class Row:
    """A step, with what each platform made of it."""

    name: str
    minor: bool
    """Whether BuildKit did it by itself."""
    cells: tuple[Cell | None, ...]

    @property
    def told(self) -> tuple[Cell, ...]:
        """The cells that have something to say besides their time."""
        return tuple(cell for cell in self.cells if cell and (cell.why or cell.error))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Steps down, platforms across, all with one scale of time."""

    builders: tuple[BuilderRecord, ...]
    rows: tuple[Row, ...]
    seconds: float
    """Length of the scale."""


def matrix(record: BuildRecord, running: Mapping[tuple[str, ...], Collection[str]] | None = None) -> Matrix:
    """Return the steps of a record; `running` names those that go on, by the platforms of their builder."""
    scale = max((_end(builder) for builder in record.builders), default=0.0) or 1.0
    order: list[str] = []
    by_builder: list[dict[str, tuple[StepRecord, BuilderRecord]]] = []
    for builder in record.builders:
        own: dict[str, tuple[StepRecord, BuilderRecord]] = {}
        last = -1
        for step in builder.steps:
            name = _unique(key(step), own)
            own[name] = (step, builder)
            if name in order:
                last = max(last, order.index(name))
            else:
                last += 1
                order.insert(last, name)
        by_builder.append(own)
    rows = []
    for name in order:
        found = [own.get(name) for own in by_builder]
        step = next(each[0] for each in found if each)
        cells = tuple(
            _cell(*each, scale, (running or {}).get(each[1].platforms, ())) if each else None for each in found
        )
        rows.append(Row(step.name, _is_minor(step), cells))
    return Matrix(record.builders, tuple(rows), scale)


def _unique(name: str, known: Collection[str]) -> str:
    number = 1
    unique = name
    while unique in known:
        number += 1
        unique = f"{name} ({number})"
    return unique


def _end(builder: BuilderRecord) -> float:
    return max(((step.at or 0.0) + step.seconds for step in builder.steps), default=0.0)


def _is_minor(step: StepRecord) -> bool:
    return "internal]" in step.name or not step.name.startswith("[")


def _cell(step: StepRecord, builder: BuilderRecord, scale: float, running: Collection[str]) -> Cell:
    x = min(round((step.at or 0.0) / scale * WIDE), WIDE - _THIN)
    width = max(_THIN, min(round(step.seconds / scale * WIDE), WIDE - x))
    steps = builder.steps
    state = "ran"
    if step.error:
        state = "failed"
    elif step.cached:
        state = "cached"
    elif step.name in running:
        state = "running"
    elif step.at is None:
        state = "waits"
    return Cell(
        x,
        width,
        state,
        step.seconds,
        str(step.why or ""),
        steps[step.because].name if step.because is not None and step.because < len(steps) else "",
        step.error,
        step.bytes,
        step.name,
        tuple(steps[at].name for at in step.inputs if at < len(steps)),
    )


@dataclass(frozen=True, slots=True)
class Segment:
    """A phase of a lane."""

    phase: str
    x: int
    width: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Lane:
    """Where the time of a builder, or of the run as a whole, went."""

    name: str
    segments: tuple[Segment, ...]


def lanes(record: BuildRecord) -> tuple[Lane, ...]:
    """Return the phases of a run from left to right: what the run waited for, its builders, the index."""
    before = [(name, record.phases[name]) for name in _PHASES[:2] if name in record.phases]
    begun = sum(taken for _, taken in before)
    after = record.phases.get("publish", 0.0)
    longest = max((sum(builder.phases.values()) for builder in record.builders), default=0.0)
    scale = begun + longest + after or 1.0

    def segments(parts: Sequence[tuple[str, float]], at: float) -> tuple[Segment, ...]:
        found = []
        for name, taken in parts:
            x = round(at / scale * WIDE)
            found.append(Segment(name, x, max(round((at + taken) / scale * WIDE) - x, 1), taken))
            at += taken
        return tuple(found)

    result = [
        Lane(", ".join(each.platforms), segments([*before, *_own(each)], 0.0))
        for each in record.builders
        if each.phases
    ]
    return (
        (*result, Lane("index", segments([("publish", after)], begun + longest))) if after and result else tuple(result)
    )


def _own(builder: BuilderRecord) -> list[tuple[str, float]]:
    return [(name, builder.phases[name]) for name in _PHASES[2:6] if name in builder.phases]


@dataclass(frozen=True, slots=True)
class Past:
    """A run in the chart of the history."""

    id: str
    result: str
    seconds: float
    x: int
    y: int
    width: int
    height: int
    hits: int | None
    """Percent of the instructions that came from the cache; None where it is not known."""
    hits_y: int
    started: str
    current: bool


_TALL: Final = 100
_BAR: Final = 60


def history(build: Build, now: datetime, shown: str = "") -> tuple[Past, ...]:
    """Return the runs of a build from the oldest on; the one with the id `shown` is marked."""
    entries: list[dict[str, Any]] = [dict(entry) for entry in build.status.get("history", ())][::-1]
    if build.run and not build.run.result:
        entries.append({**build.run.document, "result": "Running"})
    took = [seconds(entry, now) or 0.0 for entry in entries]
    most = max(took, default=0.0) or 1.0
    step = WIDE // max(len(entries), 8)
    found = []
    for number, (entry, taken) in enumerate(zip(entries, took, strict=True)):
        height = max(round(taken / most * _TALL), 2)
        cache = entry.get("cache") or {}
        hits = round(cache["hits"] / cache["total"] * 100) if cache.get("total") else None
        found.append(
            Past(
                id=str(entry["id"]),
                result=str(entry.get("result", "")),
                seconds=taken,
                x=number * step + (step - min(_BAR, step - 8)) // 2,
                y=_TALL - height,
                width=min(_BAR, step - 8),
                height=height,
                hits=hits,
                hits_y=_TALL - (hits or 0),
                started=str(entry.get("startedAt", "")),
                current=str(entry["id"]) == shown,
            )
        )
    return tuple(found)
