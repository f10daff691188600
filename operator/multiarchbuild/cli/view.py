"""How a run that is followed looks: bars on a terminal, lines elsewhere."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from multiarchbuild.api.progress import StepCount
from multiarchbuild.plan.children import Pod, Role

from .choices import Progress
from .console import coloured, span
from .follow import Board, View
from .resource import Platform, Run
from .tables import steps_of

_BAR: Final = 20
_NARROW: Final = 80
_REFRESH: Final = 8
"""Frames per second."""
_PALETTE: Final = ("cyan", "magenta", "green", "yellow", "blue")


def view(progress: Progress, console: Console) -> View:
    """Return the view that the user asked for; with auto a terminal gets bars."""
    if progress is Progress.QUIET:
        return Quiet()
    bars = progress is Progress.TTY or (
        progress is Progress.AUTO and console.is_terminal and not console.is_dumb_terminal
    )
    return Bars(console) if bars else Lines(console)


class Quiet:
    """Shows nothing."""

    reads_logs = False

    def update(self, board: Board) -> None:
        """Show nothing."""

    def line(self, pod: Pod, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """End."""


class Bars:
    """One row for each platform, drawn anew several times a second."""

    reads_logs = True

    def __init__(self, console: Console) -> None:
        """Draw on `console`, whatever size it has by then."""
        self._console = console
        self._board = Board()
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=_REFRESH, vertical_overflow="crop"
        )
        self._live.start()

    def update(self, board: Board) -> None:
        """Take what is known for the next frame."""
        self._board = board

    def line(self, pod: Pod, text: str) -> None:
        """Lines are not shown: of a failed step status keeps the last ones."""

    def close(self) -> None:
        """Draw the last frame and leave it there."""
        self._live.stop()

    def _render(self) -> RenderableType:
        return frame(self._board, datetime.now(UTC), self._console.width)


def frame(board: Board, now: datetime, width: int) -> RenderableType:
    """Return the picture of a run; what a terminal of `width` columns has no room for is left out."""
    build = board.build
    if build is None or build.run is None:
        ready = build.condition("Ready") if build else {}
        return Text(f"waiting for a run: {ready.get('reason', 'the operator has not seen it yet')}", no_wrap=True)
    run, narrow = build.run, width < _NARROW
    title = Text(f"{build.namespace}/{build.name}", style="bold", no_wrap=True, overflow="ellipsis")
    title.append(f"  run {run.id}  {run.source}  {span(run.elapsed(now))}", style="dim")
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in range(3 if narrow else 5):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in (*(_row(entry, board, now) for entry in run.platforms), _index_row(run)):
        grid.add_row(
            row.name, *([] if narrow else [row.mode]), row.bar, row.steps, *([] if narrow else [row.took]), row.doing
        )
    return Group(title, grid)


@dataclass(frozen=True, slots=True)
class _Row:
    name: Text
    mode: Text
    bar: ProgressBar
    steps: Text
    took: Text
    doing: Text


def _row(entry: Platform, board: Board, now: datetime) -> _Row:
    steps = board.log_of(entry.name)
    count = steps.count if steps else None
    numbers, cached = steps_of(entry, count)
    told = Text(numbers).append(f" {cached} cached", style="dim") if cached != "-" else Text(numbers)
    return _Row(
        Text(entry.name),
        coloured(entry.text("mode") or "-"),
        _bar(entry, count),
        told,
        Text(span(entry.elapsed(now)), justify="right"),
        _doing(entry, steps.current if steps else ""),
    )


def _bar(entry: Platform, count: StepCount | None) -> ProgressBar:
    if entry.phase == "Succeeded":
        return ProgressBar(total=1, completed=1, width=_BAR)
    if count is None or not count.total:
        # Much may be done before the first instruction is: pulls, the context.
        return ProgressBar(total=None if entry.phase == "Running" else 1, completed=0, width=_BAR)
    return ProgressBar(total=count.total, completed=count.done, width=_BAR)


def _doing(entry: Platform, current: str) -> Text:
    if entry.phase == "Running" and current:
        return Text(current, style="dim")
    state = coloured(entry.state)
    if entry.phase not in {"Running", "Succeeded"} and (said := entry.text("message")):
        state.append(f": {said}", style="default")
    elif entry.text("node"):
        state.append(f" on {entry.text('node')}", style="dim")
    return state


def _index_row(run: Run) -> _Row:
    publishing = bool(run.platforms) and all(entry.phase == "Succeeded" for entry in run.platforms)
    done = run.result == "Succeeded"
    said = "Succeeded" if done else run.result or ("publishing" if publishing else "waits for the platforms")
    bar = ProgressBar(total=None if publishing and not run.result else 1, completed=int(done), width=_BAR)
    return _Row(Text("index"), Text("-"), bar, Text("-"), Text(""), coloured(said))


class Lines:
    """A line for each change of state and each line of a log: for files, and for who likes to read."""

    reads_logs = True

    def __init__(self, console: Console) -> None:
        """Print on `console`."""
        self._console, self._started = console, time.monotonic()
        self._shown: dict[tuple[str, str], str] = {}
        self._prefixes = Prefixes()

    def update(self, board: Board) -> None:
        """Print what is new."""
        build = board.build
        if build is None or build.run is None:
            return
        self._say("run", "id", f"{build.run.id} {build.run.source}".rstrip())
        for entry in build.run.platforms:
            self._say(entry.name, "state", _state(entry))
        for name, count in board.counts().items():
            self._say(name, "count", f"{count.done}/{count.total} steps, {count.cached} cached")

    def line(self, pod: Pod, text: str) -> None:
        """Print it with the platform before it."""
        self._console.print(self._prefixes.of(pod) + Text(text), soft_wrap=True)

    def close(self) -> None:
        """End."""

    def _say(self, subject: str, what: str, text: str) -> None:
        if self._shown.get((subject, what)) == text:
            return
        self._shown[subject, what] = text
        at = f"{time.monotonic() - self._started:7.1f}s "
        self._console.print(Text(at, style="dim") + Text(f"{subject}: {text}"), soft_wrap=True)


def _state(entry: Platform) -> str:
    where = " ".join(filter(None, (entry.text("mode"), f"on {entry.text('node')}" if entry.text("node") else "")))
    said = f": {entry.text('message')}" if entry.phase not in {"Running", "Succeeded"} and entry.text("message") else ""
    tries = f" (try {entry.document['attempt']})" if int(entry.document.get("attempt") or 0) > 1 else ""
    cached = f", {entry.cache[0]}/{entry.cache[1]} steps cached" if entry.cache else ""
    return f"{entry.state}{f' ({where})' if where else ''}{tries}{cached}{said}"


class Prefixes:
    """What stands before each line of a log: its platform or role, in a colour of its own, all of one width."""

    def __init__(self) -> None:
        """Begin with the first colour."""
        self._colours: dict[str, str] = {}
        self._width = 0

    def of(self, pod: Pod) -> Text:
        """Return the prefix for a line of `pod`."""
        name = source(pod)
        colour = self._colours.setdefault(name, _PALETTE[len(self._colours) % len(_PALETTE)])
        self._width = max(self._width, len(name))
        return Text(f"{name:<{self._width}} | ", style=colour)


def source(pod: Pod) -> str:
    """Return who speaks: the platforms of a builder, else the role."""
    return ",".join(map(str, pod.platforms)) if pod.role is Role.BUILD else str(pod.role)
