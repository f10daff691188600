"""Watches of the API server that remember when they heard what."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from hack.target import CommandError, Target


@dataclass(frozen=True)
class Event:
    """A watch event.

    Attributes:
        at: When it arrived, Unix time.
        object: As it was then.
    """

    at: float
    object: dict[str, Any]


class Watch:
    """One watch, heard by a thread from `with` on."""

    def __init__(self, target: Target, path: str, name: str = "") -> None:
        """Prepare to watch `path`, such as /api/v1/namespaces/default/pods; with `name` only that object."""
        self._target = target
        one = f"&fieldSelector=metadata.name%3D{name}" if name else ""
        self._command = ["kubectl", "get", "--raw", f"{path}?watch=true{one}"]
        self._events: list[Event] = []
        self._ended = False
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._target.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._thread.join()
        self._process.wait()

    @property
    def events(self) -> list[Event]:
        """What was heard until now."""
        with self._news:
            return list(self._events)

    def until(self, true: Callable[[list[Event]], bool], what: str, seconds: float = 600) -> float:
        """Return the Unix time at which what was heard until then satisfied `true`.

        Raises:
            CommandError: The watch ended, or `seconds` passed.
        """
        deadline = time.monotonic() + seconds
        with self._news:
            while not true(self._events):
                left = deadline - time.monotonic()
                if self._ended:
                    raise CommandError(f"{' '.join(self._command)} ended while it waited for {what}")
                if left < 0:
                    raise CommandError(f"waited {seconds:.0f} s in vain for {what}")
                self._news.wait(left)
            return self._events[-1].at

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at = time.time()
            event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if event.get("type") in {None, "ERROR"}:
                break
            with self._news:
                self._events.append(Event(at, event["object"]))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
