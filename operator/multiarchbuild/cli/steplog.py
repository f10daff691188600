"""What the log of a build step tells of its progress."""

import re
from dataclasses import dataclass, field

from multiarchbuild.api.answers import is_answer
from multiarchbuild.api.progress import StepCount

_BEGUN = re.compile(r"#(\d+) (\[[^\]]+\] .+|exporting .+|importing .+)")
_ENDED = re.compile(r"#(\d+) (CACHED|DONE .*|ERROR: .*|CANCELED)")


@dataclass(slots=True)
class StepLog:
    """What was read so far."""

    count: StepCount | None = None
    running: dict[int, str] = field(default_factory=dict)
    """Name of each step that has begun and not ended, by its number."""

    def feed(self, line: str) -> bool:
        """Take one line; return whether it tells nothing to people: progress, or what the operator reads."""
        if is_answer(line):
            return True
        if count := StepCount.parse(line):
            self.count = count
            return True
        if ended := _ENDED.fullmatch(line):
            self.running.pop(int(ended[1]), None)
        elif begun := _BEGUN.fullmatch(line):
            # Output of a step has the seconds since it began between its number and the text.
            self.running.setdefault(int(begun[1]), begun[2])
        return False

    @property
    def current(self) -> str:
        """The step that began last and has not ended, or nothing.

        BuildKit's own (`[internal] …`) are never said to have ended: any other goes before them.
        """
        names = [name for name in self.running.values() if not name.startswith("[internal]")]
        return next(iter(names[-1:] or list(self.running.values())[-1:]), "")
