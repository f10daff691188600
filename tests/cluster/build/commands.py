"""Running other programs: output kept in a log, failures explained with its end, all of them stopped together."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.build.errors import BuildError

_TAIL_LINES = 15


class Commands:
    """Runs programs for one build and can end all of those that are still running.

    ``logs`` receives one file per task name.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(
        self, task: str, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a program to its end, its output appended to the task's log.

        ``env`` is added to the environment. Raises BuildError with the end of the log when the program fails.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{task.replace('/', '-').replace(' ', '-')}.log"
        words = [str(word) for word in argv]
        with log.open("ab") as output:
            output.write(f"$ {shlex.join(words)}\n".encode())
            output.flush()
            process = self._start(words, output.fileno(), cwd, env)
            try:
                status = process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)
        if status != 0:
            tail = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            raise BuildError(
                f"Building {task} failed: {words[0]} ended with status {status}. The end of {log}:\n  "
                + "\n  ".join(tail)
            )

    def stop(self) -> None:
        """End every program that is running, with its children, and refuse to start another."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)

    def _start(
        self, words: list[str], output: int, cwd: Path | None, env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise BuildError(f"Not starting {words[0]}: the build was stopped.")
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        return process
