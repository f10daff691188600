"""The error at the end of a build, taken apart: which step it is of, and what BuildKit says of it.

buildctl prints the lines of the Dockerfile that the error is about, then `error: failed to solve: ` and the chain of
Go's wrapped errors (cmd/buildctl/main.go). What a `RUN` prints is in the log of its step and never in here; what the
Dockerfile says is in here within the quotes of `process "…"` only, so that patterns which are anchored outside of
them cannot be met by it.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from .progress import Progress, Vertex

_ERROR = "error: "
_SOLVE = "failed to solve: "
_EXCERPT = re.compile(r"^-{5,}$")
_MARKED = re.compile(r"^ *\d+ \| >>> (?P<text>.*)$")
_PROCESS = re.compile(r'^process "(?:[^"\\]|\\.)*" did not complete successfully: (?P<how>.*)$', re.DOTALL)
"""Source: solver/llbsolver/ops/exec.go; the command is quoted by Go's %q."""
_EXIT = re.compile(r"^exit code: (?P<code>\d+)$")
_OUT_OF_MEMORY = "cannot allocate memory"
"""BuildKit's word for a RUN of whose cgroup the kernel killed a process (executor/runcexecutor, detectOOM)."""


@dataclass(frozen=True)
class BuildError:
    """Why buildctl ended without an image."""

    progress: Progress
    solved: bool
    """Whether BuildKit answered: else it is buildctl that failed, before or after it was connected."""
    text: str
    """What BuildKit or buildctl says, without the words that every error begins with."""
    excerpt: tuple[str, ...]
    """What of the Dockerfile buildctl shows beside it."""

    @classmethod
    def of(cls, progress: Progress) -> "BuildError":
        """Return the error that buildctl printed last."""
        said = progress.said
        start = next((number for number, line in enumerate(said) if line.startswith(_ERROR)), None)
        whole = "\n".join(said[start:] if start is not None else said[-1:]).removeprefix(_ERROR)
        excerpt = said[:start] if start is not None and any(map(_EXCERPT.match, said[:start])) else []
        return cls(progress, whole.startswith(_SOLVE), whole.removeprefix(_SOLVE), tuple(excerpt))

    @cached_property
    def step(self) -> Vertex | None:
        """The step that failed, or None where the build failed outside of all steps."""
        return self.progress.failed(self.text)

    @property
    def name(self) -> str:
        """Name of the step that failed, or empty."""
        return self.step.name if self.step else ""

    @property
    def instruction(self) -> str:
        """The first line of the Dockerfile that the error is about, or empty."""
        return next((match["text"] for line in self.excerpt if (match := _MARKED.match(line))), "")

    @property
    def cause(self) -> str:
        """The longer of what the step says and what the build says: either leaves out words of the other."""
        said = self.step.error if self.step else ""
        return max(self.text, said, key=len)

    @cached_property
    def _process(self) -> str | None:
        """How the process of a RUN ended, or None where no process failed."""
        texts = (self.step.error if self.step else "", self.text)
        return next((match["how"] for text in texts if (match := _PROCESS.match(text))), None)

    @property
    def is_process(self) -> bool:
        """Whether a process that BuildKit ran for a step is what failed."""
        return self._process is not None

    @property
    def exit_code(self) -> int | None:
        """Exit code of that process, if it has one."""
        match = _EXIT.match(self._process or "")
        return int(match["code"]) if match else None

    @property
    def out_of_memory(self) -> bool:
        """Whether BuildKit saw the kernel kill a process of the step for memory."""
        return self._process == _OUT_OF_MEMORY

    @property
    def words(self) -> str:
        """What the build says, as one line for a message."""
        lines = filter(None, (line.strip() for line in self.text.splitlines()))
        return clip("; ".join(lines).rstrip("."), 800)


def clip(text: str, size: int) -> str:
    """Return `text`, or its beginning and its end around an ellipsis, in at most `size` characters."""
    if len(text) <= size:
        return text
    head = (size - 3) // 2
    return f"{text[:head]} … {text[len(text) - (size - head - 3) :]}"
