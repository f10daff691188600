"""What is being built, for how long, and what is left: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TextIO

_REFRESH_SECONDS = 0.5
_REMINDER_SECONDS = 30.0


def duration(seconds: float) -> str:
    """Return seconds as a person says them: ``42 s``, ``3 min 07 s``."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def status_line(running: dict[str, float], done: int, total: int, elapsed: float) -> str:
    """Return the one line that describes a build: tasks with their seconds, what is done of how many, time in all."""
    tasks = ", ".join(f"{name} {duration(seconds)}" for name, seconds in running.items()) or "waiting"
    return f"{done}/{total} done, {duration(elapsed)} · building {tasks}"


class Progress:
    """Shows a build that runs tasks side by side. Safe to use from several threads; silent until a task is planned.

    On a terminal one line is rewritten twice a second. Elsewhere a line is printed when a task starts or ends, and
    every half minute while nothing happens, so that a log shows life.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._started_at: float | None = None
        self._running: dict[str, float] = {}
        self._planned: set[str] = set()
        self._done = 0
        self._last_line_at = 0.0
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def plan(self, tasks: Collection[str]) -> None:
        """Add tasks to those that have to be done."""
        with self._lock:
            self._planned |= set(tasks)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show elapsed time while the block runs."""
        self._started_at = time.monotonic()
        self._stop.clear()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()
        try:
            yield
        finally:
            self._stop.set()
            self._ticker.join()
            if self._live:
                self._write("\r\x1b[K")

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Count the block as one task, shown as running while it runs and as done when it ends without an exception."""
        with self._lock:
            self._planned.add(name)
            self._running[name] = time.monotonic()
            left = len(self._planned) - self._done
        if not self._live:
            self.note(f"building {name} ({left} left)")
        try:
            yield
        except BaseException:
            with self._lock:
                self._running.pop(name)
            raise
        with self._lock:
            seconds = time.monotonic() - self._running.pop(name)
            self._done += 1
            done, total = self._done, len(self._planned)
        self.note(f"built {name} in {duration(seconds)} ({done}/{total})")

    def note(self, text: str) -> None:
        """Print one line that stays."""
        elapsed = 0.0 if self._started_at is None else time.monotonic() - self._started_at
        with self._lock:
            clear = "\r\x1b[K" if self._live else ""
            self._write(f"{clear}[{elapsed:6.1f} s] {text}\n")
            self._last_line_at = time.monotonic()

    def _tick(self) -> None:
        while not self._stop.wait(_REFRESH_SECONDS):
            now = time.monotonic()
            with self._lock:
                quiet = now - self._last_line_at
                if self._started_at is None or not (self._live or quiet >= _REMINDER_SECONDS):
                    continue
                running = {name: now - since for name, since in self._running.items()}
                line = status_line(running, self._done, len(self._planned), now - self._started_at)
                self._write(f"\r\x1b[K{line[:160]}" if self._live else f"{line}\n")
                if not self._live:
                    self._last_line_at = now

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
