"""What is measured, as JSON and as a table."""

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from multiarchbuild import __version__

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Run:
    """Many builds at once."""

    builds: int
    namespaces: int
    source: str
    lone_seconds: float
    """From the creation of a build until it is Ready, while there is no other."""
    created_seconds: float
    """Until all builds were created."""
    ready_seconds: tuple[float, ...]
    """From the first creation until each build was Ready, in order."""
    requests: dict[str, int]
    """Of the operator, by verb and resource, for all builds together."""
    reads: int
    writes: int
    looks: int
    cpu_seconds: float
    """Of the operator."""
    memory_before: float
    """MiB of the operator, before the builds were created."""
    memory_peak: float
    floor_seconds: float
    """For writing the same objects."""
    floor_cpu_seconds: float
    """Of the script that does it, which plays the kubelet too."""
    errors: tuple[str, ...] = ()
    """What the operator has logged as errors."""

    @property
    def seconds(self) -> float:
        """Until the last one was Ready."""
        return self.ready_seconds[-1]

    @property
    def ratio(self) -> float:
        """How much longer the operator takes than merely writing takes."""
        return self.seconds / self.floor_seconds

    @property
    def status_writes(self) -> float:
        """Of each build."""
        return self.requests.get("patch multiarchbuilds/status", 0) / self.builds

    @property
    def cpu_milliseconds(self) -> float:
        """Of the operator, for each build."""
        return 1000 * self.cpu_seconds / self.builds

    def per_build(self, number: float) -> float:
        """Return a number of all builds for each of them."""
        return number / self.builds

    def rows(self) -> Iterable[tuple[str, str]]:
        """Yield what a person wants to know."""
        yield "builds", f"{self.builds} of two platforms ({self.source}) in {self.namespaces} namespaces"
        yield "all Ready after", f"{self.seconds:.1f} s ({self.builds / self.seconds:.1f} builds/s)"
        yield "writing the same objects takes", f"{self.floor_seconds:.1f} s"
        yield "ratio to that", f"{self.ratio:.2f}"
        first, middle = self.ready_seconds[0], median(self.ready_seconds)
        yield "Ready: first, median, last", f"{first:.1f} s, {middle:.1f} s, {self.seconds:.1f} s"
        yield "a build alone is Ready after", f"{self.lone_seconds:.1f} s"
        yield "CPU of the operator", f"{self.cpu_milliseconds:.1f} ms a build"
        yield "its memory: before, at most", f"{self.memory_before:.0f} MiB, {self.memory_peak:.0f} MiB"
        yield "looks a build", f"{self.per_build(self.looks):.1f}"
        yield "reads a build", f"{self.per_build(self.reads):.2f}"
        yield "writes a build", f"{self.per_build(self.writes):.2f}"
        for name, number in sorted(self.requests.items(), key=lambda entry: -entry[1]):
            if number >= self.builds / 10:
                yield f"… {name}", f"{self.per_build(number):.2f}"
        if self.errors:
            yield "errors", str(len(self.errors))


@dataclass(frozen=True)
class Fact:
    """Something else that was measured."""

    name: str
    value: str
    numbers: dict[str, float] = field(default_factory=dict)


def document(runs: Iterable[Run], facts: Iterable[Fact]) -> str:
    """Return the figures as Markdown."""
    said = [f"{datetime.now(UTC):%Y-%m-%d}, version {__version__}, Python {platform.python_version()}."]
    for run in runs:
        said += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in run.rows())]
    if lines := [f"| {fact.name} | {fact.value} |" for fact in facts]:
        said += ["", "| | |", "|---|---|", *lines]
    return "\n".join(said)


def as_json(run: Run) -> dict[str, Any]:
    """Return everything that was measured."""
    made = asdict(run)
    made["ready_seconds"] = [round(seconds, 2) for seconds in run.ready_seconds]
    return {**made, "ratio": run.ratio, "cpu_milliseconds": run.cpu_milliseconds}


def write(region: str, text: str) -> None:
    """Put figures into their region of the page about benchmarks."""
    page = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- {region} -->", f"<!-- /{region} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    assert found, f"{DOCUMENT} has no region {region}"
    assert closed, f"{DOCUMENT}: the region {region} does not end"
    DOCUMENT.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
