"""Following a run: what the API server says of the build and its pods, and what the pods say, as one sequence."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from multiarchbuild.api.answers import LinesOfRun
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.resource import PLURAL
from multiarchbuild.plan.children import Pod, Role, pod_from

from .errors import BuildFailedError, CliError, NotFoundError, TimedOutError
from .kube import BUILDS, CORE, Cluster, Object
from .resource import Build, Verdict, answers, verdict
from .steplog import StepLog
from .watch import Change, log, watch

_DRAIN: Final = 3.0
"""Seconds that logs get to come to their end once the run has ended."""


@dataclass(slots=True)
class Board:
    """What is known of the run that is followed."""

    build: Build | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    logs: dict[str, StepLog] = field(default_factory=dict)
    """By pod."""

    def pod_of(self, platform: str) -> Pod | None:
        """Return the newest builder of a platform."""
        try:
            wanted = Platform.parse(platform)
        except ValueError:
            return None
        own = [pod for pod in self.pods.values() if pod.role is Role.BUILD and wanted in pod.platforms]
        return max(own, key=lambda pod: (pod.created_at, pod.attempt), default=None)

    def log_of(self, platform: str) -> StepLog | None:
        """Return what the newest builder of a platform has said, if it has."""
        pod = self.pod_of(platform)
        return self.logs.get(pod.name) if pod else None

    def counts(self) -> dict[str, StepCount]:
        """Return how far each platform is."""
        run = self.build.run if self.build else None
        found = {entry.name: self.log_of(entry.name) for entry in (run.platforms if run else ())}
        return {name: steps.count for name, steps in found.items() if steps and steps.count}


class View(Protocol):
    """Where it is shown."""

    reads_logs: bool

    def update(self, board: Board) -> None:
        """Something has changed."""

    def line(self, pod: Pod, text: str) -> None:
        """A pod has said something."""

    def close(self) -> None:
        """Nothing more will come."""


@dataclass(frozen=True, slots=True)
class _Said:
    pod: str
    text: str


@dataclass(frozen=True, slots=True)
class _Silent:
    pod: str


_Item = Build | Change | _Said | _Silent | CliError


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run is followed, and for how long."""

    name: str
    run: str | None = None
    """Its id, or None for the one that answers the present spec and `request`."""
    request: str | None = None
    timeout: float | None = None
    """Seconds, or None without a limit."""


class Follower:
    """Follows one run until it has ended."""

    def __init__(
        self, cluster: Cluster, view: View, *, wants: Callable[[Pod], bool] = lambda _: True, tail: int | None = None
    ) -> None:
        """`wants`: whose logs are read; `tail`: only the last lines of what each had said before."""
        self._cluster, self._view, self._wants, self._tail = cluster, view, wants, tail
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._board, self._reading = Board(), set[str]()
        self._run: str | None = None
        self._watching = False

    def follow(self, wanted: Wanted) -> tuple[Build, Verdict]:
        """Return the build and how its run has ended.

        Raises:
            TimedOutError: it has not ended in time; it goes on.
            BuildFailedError: it was deleted.
            CliError: the API server refuses to tell or is away.
        """
        deadline = None if wanted.timeout is None else time.monotonic() + wanted.timeout
        self._run = wanted.run
        self._start(self._watch_build(wanted.name))
        try:
            while True:
                item = self._next(deadline, wanted.name)
                self._take(item, wanted)
                build = self._board.build
                if not isinstance(item, Build) or build is None:
                    continue
                if ended := verdict(build, self._run, wanted.request):
                    self._drain()
                    return build, ended
        finally:
            self._view.close()

    def _next(self, deadline: float | None, name: str) -> _Item:
        try:
            return self._items.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise TimedOutError(f"{name} did not end within the timeout; the run continues") from None

    def _take(self, item: _Item, wanted: Wanted) -> None:
        match item:
            case CliError():
                raise item
            case Build():
                self._board.build = item
                if self._run is None and item.observed and item.run and answers(item.run, wanted.request):
                    self._run = item.run.id
                if self._run is not None and not self._watching:
                    self._watching = True
                    self._start(self._watch_pods(item, self._run))
                self._view.update(self._board)
            case Change():
                self._pod(item)
                self._view.update(self._board)
            case _Said(pod=name, text=text):
                if not self._board.logs[name].feed(text):
                    self._view.line(self._board.pods[name], text)
                self._view.update(self._board)
            case _Silent(pod=name):
                self._reading.discard(name)

    def _pod(self, change: Change) -> None:
        pod = pod_from(change.object)
        known = self._board.pods
        known[pod.name] = pod
        if pod.name in self._board.logs or not self._view.reads_logs or not self._wants(pod):
            return
        if pod.step_started_at is not None and change.type != "DELETED":
            self._board.logs[pod.name] = StepLog()
            self._reading.add(pod.name)
            self._start(self._read(pod))

    def _drain(self) -> None:
        """Show what the pods said last."""
        end = time.monotonic() + _DRAIN
        while self._reading:
            try:
                item = self._items.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                return
            if isinstance(item, _Said | _Silent | Change):
                self._take(item, Wanted(""))
        self._view.update(self._board)

    def _start(self, items: Iterable[_Item]) -> None:
        def work() -> None:
            try:
                for item in items:
                    self._items.put(item)
            except CliError as error:
                self._items.put(error)

        threading.Thread(target=work, daemon=True).start()

    def _watch_build(self, name: str) -> Iterator[_Item]:
        path = self._cluster.path(BUILDS, PLURAL)
        # A watch of something that is not there says nothing at all.
        self._cluster.get(name)
        for change in watch(self._cluster, path, ("fieldSelector", f"metadata.name={name}")):
            if change.type == "DELETED":
                raise BuildFailedError(f"{name} was deleted")
            yield Build(change.object)

    def _watch_pods(self, build: Build, run: str) -> Iterator[_Item]:
        selector = ("labelSelector", build.selector(run))
        yield from watch(self._cluster, self._cluster.path(CORE, "pods"), selector)

    def _read(self, pod: Pod) -> Iterator[_Item]:
        lines = own_lines(pod, self._run)
        try:
            # Of a kept builder from its beginning on: the last lines may be of another run.
            for text in log(self._cluster, pod.name, follow=True, tail=None if lines else self._tail):
                if lines is None or lines.has(text):
                    yield _Said(pod.name, text)
                elif lines.ended:
                    break  # the builder goes on
        except NotFoundError:
            pass
        yield _Silent(pod.name)


def own_lines(pod: Pod, run: str | None) -> LinesOfRun | None:
    """Return what tells the lines of `run` in the log of a builder that serves several; None where it serves one."""
    return LinesOfRun(pod.name, pod.nonce, run) if pod.template and run else None


def pods_of(cluster: Cluster, build: Build, run: str | None) -> list[tuple[Pod, Object]]:
    """Return the pods of a run, or of all runs, in the order in which they were made."""
    manifests = cluster.pods(build.selector(run))
    found = [(pod_from(manifest), manifest) for manifest in manifests]
    order = list(Role)
    return sorted(found, key=lambda each: (order.index(each[0].role), each[0].created_at, each[0].name))
