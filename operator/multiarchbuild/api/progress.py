"""How far a build is: one line of its step's log, for people who read it and for programs that draw it.

The command line follows pods by their logs; status tells how much came from the cache once a build has ended.
"""

import re
from dataclasses import dataclass
from typing import Self

_LINE = re.compile(r"==> (\d{1,6})/(\d{1,6}) steps done, (\d{1,6}) cached")


@dataclass(frozen=True, slots=True)
class StepCount:
    """Instructions of the Dockerfile, those that only pull a base image left out."""

    done: int
    total: int
    cached: int
    """Of those that are done."""

    def __str__(self) -> str:
        return f"==> {self.done}/{self.total} steps done, {self.cached} cached"

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Return the count that a line of a log tells, or None where it is another line."""
        match = _LINE.fullmatch(line)
        return cls(*map(int, match.groups())) if match else None
