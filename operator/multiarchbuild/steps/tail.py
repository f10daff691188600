"""The end of the log of a build that failed, as status shows it: three parts, each with a budget of its own.

What the program printed last comes first and gets what is left; then the lines of the Dockerfile; then the error. A
RUN of a hundred lines is in the Dockerfile's lines and in the error once more, and pushes out nothing of the output.
"""

import re
from collections.abc import Sequence

from .build_error import BuildError, clip

_DOCKERFILE_LINES = 5
_DOCKERFILE_WIDTH = 160
_ERROR_SIZE = 480
_OUTPUT_LINES = 30
_SIZE = 3000
"""Characters of all: with a message it fits into the 4096 bytes of a termination message, unless it needs many
escapes."""
_MARKED = re.compile(r"^ *\d+ \| >>>")
_NUMBERED = re.compile(r"^ *\d+ \| ")


def log_tail(error: BuildError) -> str:
    """Return the last lines of the step that failed, at most 5 lines of the Dockerfile, and the error."""
    end = [*_dockerfile(error.excerpt), f"error: {clip(error.text or error.cause, _ERROR_SIZE)}"]
    output = error.step.last_lines if error.step else []
    return "\n".join([*last_lines(output, _SIZE - sum(len(line) + 1 for line in end)), *end])


def last_lines(lines: Sequence[str], size: int = _SIZE) -> list[str]:
    """Return the last of `lines` that fit into `size` characters; of a line that is too long, its end."""
    kept: list[str] = []
    for line in reversed(lines[-_OUTPUT_LINES:]):
        if size - len(line) - 1 < 0:
            return [line[len(line) - size + 1 :], *kept] if size > 1 and not kept else kept
        size -= len(line) + 1
        kept.insert(0, line)
    return kept


def _dockerfile(excerpt: Sequence[str]) -> list[str]:
    """Return the name and line of an excerpt and the lines that it marks, in at most _DOCKERFILE_LINES lines."""
    if not excerpt:
        return []
    numbered = [line for line in excerpt if _NUMBERED.match(line)]
    marked = [line for line in numbered if _MARKED.match(line)]
    shown = numbered if len(numbered) < _DOCKERFILE_LINES else marked[: _DOCKERFILE_LINES - 1]
    if len(marked) > len(shown):
        shown[-1] = f"{shown[-1]} … ({len(marked) - len(shown)} more lines)"
    return [clip(line, _DOCKERFILE_WIDTH) for line in (excerpt[0], *shown)]
