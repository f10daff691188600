"""What the contestants have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .workload import Case


class BenchmarkError(Exception):
    """A build failed or is not comparable; the message says which and why."""


@dataclass(frozen=True)
class Timing:
    """One build.

    Attributes:
        seconds: From the first command until the tagged index is there and whoever waits for it knows.
        phases: Where they went, in order; they add up to `seconds`.
    """

    seconds: float
    phases: Mapping[str, float]


class Contestant(Protocol):
    """One way to build."""

    name: str

    def build(self, case: Case, image: str) -> Timing:
        """Build `case` and push it to the repository `image`; return once nothing of it runs any more.

        Raises:
            BenchmarkError: The build failed.
            CommandError: A program failed.
        """

    def reset(self) -> None:
        """Remove the builders and all that builds left in the cluster."""


def phases(start: float, marks: Mapping[str, float]) -> Timing:
    """Return what `marks`, the end of each phase as Unix time in their order, say of a build begun at `start`."""
    ends = list(marks.values())
    begins = [start, *ends[:-1]]
    spans = {name: end - begin for (name, end), begin in zip(marks.items(), begins, strict=True)}
    return Timing(ends[-1] - start, spans)
