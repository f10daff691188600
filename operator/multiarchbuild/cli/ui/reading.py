"""What the page shows, read from the cluster and the registry as the user may. Synchronous: called in threads."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from multiarchbuild.api.answers import is_answer
from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.record import BuilderRecord, BuildRecord
from multiarchbuild.cli import inspect, records
from multiarchbuild.cli.console import visible
from multiarchbuild.cli.errors import CliError, NotFoundError
from multiarchbuild.cli.follow import own_lines, pods_of
from multiarchbuild.cli.kube import Cluster, Object
from multiarchbuild.cli.livesteps import LiveSteps
from multiarchbuild.cli.resource import Build
from multiarchbuild.cli.watch import stamped_log, watch
from multiarchbuild.plan.children import Pod, Role

_KEPT: Final = 64
"""Records, logs and images that are remembered."""
_LINES: Final = 20_000
"""Lines of a log that are shown: its last."""
_WIDTH: Final = 4000
"""Characters of a line that are shown."""
_PAUSE: Final = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What is new in the list since a version."""

    version: int
    changed: tuple[Build, ...]
    gone: tuple[str, ...]
    whole: bool
    """Whether `changed` is all there is, as nobody knows any more what was deleted since the version."""


class Builds:
    """All builds that the user may list, kept up to date by a watch."""

    def __init__(self, cluster: Cluster, *, everywhere: bool) -> None:
        """Begin to watch, in a thread of its own."""
        self._cluster, self._everywhere = cluster, everywhere
        self._lock, self._listed = threading.Condition(), False
        self._known: dict[str, tuple[int, Build]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()
        # Above every version of a server before this one, whose page may still be open.
        self._version = self._remembers = int(time.time() * 1000)
        self.error = ""
        """Why the list is not up to date."""
        threading.Thread(target=self._watch, daemon=True).start()

    def all(self) -> Change:
        """Return every build, newest run first; waits for the first list."""
        with self._lock:
            self._lock.wait_for(lambda: self._listed or self.error, timeout=10)
        return self.since(-1)

    def since(self, version: int) -> Change:
        """Return what has changed after `version`."""
        with self._lock:
            if not self._listed:
                return Change(version, (), (), whole=False)
            whole = not self._remembers <= version <= self._version
            changed = [build for at, build in self._known.values() if whole or at > version]
            gone = tuple(uid for uid, at in self._gone.items() if at > version)
            return Change(self._version, tuple(sorted(changed, key=_newest_first)), gone, whole)

    def _watch(self) -> None:
        path = self._cluster.builds_path(everywhere=self._everywhere)
        known: dict[str, Object] = {}
        while True:
            try:
                # A watch of nothing says nothing.
                if not self._cluster.request("GET", path, query=[("limit", "1")]).get("items"):
                    self._empty()
                for change in watch(self._cluster, path, known=known):
                    self._take(change.object, deleted=change.type == "DELETED")
            except CliError as error:
                self._lose(str(error))
            except (KeyError, TypeError, ValueError) as error:
                self._lose(f"the API server's answer is not a list of builds: {error!r}")
            time.sleep(_PAUSE)

    def _empty(self) -> None:
        with self._lock:
            self.error, self._listed = "", True
            self._lock.notify_all()

    def _lose(self, why: str) -> None:
        with self._lock:
            self.error = why
            self._lock.notify_all()

    def _take(self, manifest: Object, *, deleted: bool) -> None:
        uid = str(manifest["metadata"]["uid"])
        with self._lock:
            self._version += 1
            self.error, self._listed = "", True
            if deleted:
                self._known.pop(uid, None)
                self._gone[uid] = self._version
                while len(self._gone) > 10 * _KEPT:
                    _, self._remembers = self._gone.popitem(last=False)
            else:
                self._known[uid] = self._version, Build(manifest)
            self._lock.notify_all()


def _newest_first(build: Build) -> tuple[bool, float, str]:
    started = build.run.document.get("startedAt") if build.run else None
    at = datetime.fromisoformat(started).timestamp() if started else 0.0
    return (build.run is None or bool(build.run.result), -at, build.name)


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, as far as it can be read."""

    build: Build
    run: str
    record: BuildRecord
    running: dict[tuple[str, ...], frozenset[str]]
    """Names of the steps that go on, by the platforms of their builder."""
    pods: tuple[Pod, ...]
    note: str = ""
    """Why it is read from logs and not from a record."""

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        current = self.build.run
        return current is not None and current.id == self.run and not current.result


@dataclass(frozen=True, slots=True)
class LogPart:
    """Lines of a log."""

    lines: tuple[str, ...]
    since: str
    """Time of the last one, from which it goes on."""
    ended: bool


@dataclass(slots=True)
class Reader:
    """Reads runs, logs and images, and remembers what cannot change."""

    cluster: Cluster
    plain_http: bool = False
    _records: OrderedDict[str, BuildRecord] = field(default_factory=OrderedDict)
    _unread: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)
    _steps: OrderedDict[str, tuple[str, LiveSteps]] = field(default_factory=OrderedDict)
    _images: OrderedDict[str, inspect.Report] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def build(self, namespace: str, name: str) -> tuple[Cluster, Build]:
        """Return a build, and a client for its namespace."""
        cluster = self.cluster.within(namespace)
        return cluster, Build(cluster.get(name))

    def run(self, namespace: str, name: str, run: str = "") -> RunView | None:
        """Return a run of a build, by default its last; None where it has had none.

        Raises:
            CliError: it cannot be read.
        """
        cluster, build = self.build(namespace, name)
        current = build.run
        wanted = run or (current.id if current else "")
        if not wanted:
            return None
        pods = tuple(pod for pod, _ in pods_of(cluster, build, wanted))
        note = ""
        if current is None or current.id != wanted or current.result:
            try:
                return RunView(build, wanted, self._record(cluster, build, wanted), {}, pods)
            except CliError as error:
                note = str(error)
        with self._lock:
            builders, running = self._live(cluster, build, pods)
        if note and not builders and all(entry["id"] != wanted for entry in build.status.get("history", ())):
            raise NotFoundError(note)
        record = BuildRecord(name=build.name, namespace=build.namespace, run=wanted, builders=builders)
        return RunView(build, wanted, record, running, pods, note)

    def _record(self, cluster: Cluster, build: Build, run: str) -> BuildRecord:
        key = f"{build.document['metadata']['uid']}/{run}"
        if key in self._records:
            return self._records[key]
        # A registry that does not answer is not asked again at each look.
        if (unread := self._unread.get(key)) and time.monotonic() - unread[0] < 12 * _PAUSE:
            raise NotFoundError(unread[1])
        try:
            found = records.of_run(cluster, build, run, plain_http=self.plain_http)
        except CliError as error:
            _remember(self._unread, key, (time.monotonic(), str(error)))
            raise
        _remember(self._records, key, found)
        return found

    def _live(
        self, cluster: Cluster, build: Build, pods: tuple[Pod, ...]
    ) -> tuple[tuple[BuilderRecord, ...], dict[tuple[str, ...], frozenset[str]]]:
        newest = {pod.platforms: pod for pod in pods if pod.role is Role.BUILD and pod.step_started_at is not None}
        platforms = {entry.name: entry for entry in build.run.platforms} if build.run else {}
        builders, running = [], {}
        for pod in newest.values():
            since, steps = self._steps.get(pod.uid, ("", LiveSteps()))
            try:
                for stamp, text in stamped_log(cluster, pod.name, since=since, tail=None if since else _LINES):
                    steps.feed(stamp, text)
                    since = stamp
            except CliError:
                continue
            _remember(self._steps, pod.uid, (since, steps))
            names = tuple(map(str, pod.platforms))
            record = steps.record(names, None if pod.concluded else datetime.now(UTC))
            known = platforms.get(names[0]) if names else None
            phases = dict(_waited(pod))
            fields = {"mode": str(pod.mode), "attempt": pod.attempt, "phases": phases}
            if known and (took := known.elapsed(datetime.now(UTC))) is not None:
                phases["build"] = took
            builders.append(record.model_copy(update=fields))
            if not pod.concluded:
                running[names] = steps.running()
        return tuple(builders), running

    def log(self, namespace: str, name: str, pod: str, since: str) -> LogPart:
        """Return the lines of a pod of a build after `since`, as they may be shown.

        Raises:
            CliError: it is no pod of the build, or the log cannot be read.
        """
        cluster, build = self.build(namespace, name)
        found = next((each for each, _ in _pods(cluster, build) if each.name == pod), None)
        if found is None:
            raise NotFoundError(f"{pod} is not a pod of {name}, or is gone")
        if found.step_started_at is None:
            return LogPart((), since, ended=found.concluded)
        # Of a kept builder, whose log has several runs, from its beginning: what is of this one.
        own = None if since else own_lines(found, found.run_id)
        lines, last = deque[str](maxlen=_LINES), since
        for stamp, text in stamped_log(cluster, pod, since=since, tail=None if since or own else _LINES):
            last = stamp
            if own is not None and not own.has(text):
                continue
            if not is_answer(text) and StepCount.parse(text) is None:
                lines.append(shown(text))
        return LogPart(tuple(lines), last, ended=found.concluded)

    def pair(self, namespace: str, name: str, run: str) -> tuple[BuildRecord, BuildRecord] | None:
        """Return the records of a run and of the one before it; None where one of them has none.

        Raises:
            CliError: the build cannot be read.
        """
        cluster, build = self.build(namespace, name)
        ids = [str(entry["id"]) for entry in build.status.get("history", ())]
        if run not in ids:
            return None
        found = []
        for each in ids[ids.index(run) :]:
            try:
                found.append(self._record(cluster, build, each))
            except CliError:
                if each == run:
                    return None
            if len(found) == 2:  # noqa: PLR2004 - a pair
                return found[1], found[0]
        return None

    def image(self, namespace: str, name: str) -> inspect.Report:
        """Return what the registry has of the last image of a build.

        Raises:
            CliError: there is none, or the registry says no.
        """
        cluster, build = self.build(namespace, name)
        key = f"{build.ref}/{build.status.get('image', {}).get('record')}"
        if key not in self._images:
            found = inspect.report(name, lambda: cluster, plain_http=self.plain_http, layers=True)
            _remember(self._images, key, found)
        return self._images[key]


def _pods(cluster: Cluster, build: Build) -> list[tuple[Pod, Object]]:
    return pods_of(cluster, build, None)


def _waited(pod: Pod) -> Iterator[tuple[str, float]]:
    if pod.scheduled_at is not None and pod.handed is None:
        yield "schedule", max((pod.scheduled_at - pod.created_at).total_seconds(), 0.0)
        if pod.step_started_at is not None:
            yield "pull", max((pod.step_started_at - pod.scheduled_at).total_seconds(), 0.0)


def _remember(cache: OrderedDict[str, T], key: str, value: T) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > _KEPT:
        cache.popitem(last=False)


def shown(text: str) -> str:
    """Return a line of a log as a page may show it: of bounded length, and nothing in it acts."""
    cut = len(text) - _WIDTH
    return visible(text[:_WIDTH]) + (f" … {cut:,} more characters" if cut > 0 else "")
