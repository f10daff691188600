"""All builds of the cluster as the others see them: whose turn it is, and who moves which tag.

A copy of what the watch shows, kept because listing all builds at each look at one does not scale. Nothing is decided
before the watch has shown all of them, and it is nobody's only memory.
What is decided enters it at once: two builds that are looked at at the same time never take the same turn.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from multiarchbuild.api.status import Status
from multiarchbuild.plan.build_summary import BuildSummary, summarize
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.policy import Concurrency

from .seen import SeenBuild, see, version_of
from .watch import Key

KEPT: Final = 4096
"""Builds that are kept as they were seen last, some 20 KiB each; others are read when they are looked at."""


class BuildIndex:
    """See the module. All calls come from one event loop."""

    def __init__(self, limits: Concurrency, wake: Callable[[Key], None]) -> None:
        """Know nothing yet.

        Args:
            limits: How many runs may go on at the same time.
            wake: Called for each build that has to be looked at because another has changed.
        """
        self._wake = wake
        self._known: dict[Key, tuple[int, BuildSummary]] = {}
        self._latest: OrderedDict[Key, SeenBuild] = OrderedDict()
        self.view = ClusterView(limits)
        """All builds, the one that is looked at included."""

    def seen(self, kind: str, manifest: Mapping[str, Any]) -> None:
        """Take in what the watch shows."""
        key = _key(manifest)
        if kind == "DELETED" or "deletionTimestamp" in manifest["metadata"]:
            self.gone(key)
            return
        version = version_of(manifest)
        if key in self._known and self._known[key][0] >= version:
            return
        seen = see(manifest)
        if seen.build is None:
            self.gone(key)
            return
        self._keep(key, seen)
        self._store(key, version, summarize(seen.build))

    def latest(self, key: Key) -> SeenBuild | None:
        """Return a build as it was seen or written last, if it is kept. What there is may be newer."""
        return self._latest.get(key)

    def written(self, seen: SeenBuild) -> None:
        """Take in what we have written ourselves: no look sees less than that."""
        assert seen.build is not None
        key = Key(seen.namespace, seen.name)
        if key in self._known and self._known[key][0] < seen.version:
            self._keep(key, seen)
            self._store(key, seen.version, summarize(seen.build))

    def rest(self, key: Key) -> None:
        """Keep no more of a build than its summary: nothing goes on, or what is kept has proved to be old."""
        self._latest.pop(key, None)

    def _keep(self, key: Key, seen: SeenBuild) -> None:
        self._latest[key] = seen
        self._latest.move_to_end(key)
        if len(self._latest) > KEPT:
            self._latest.popitem(last=False)

    def gone(self, key: Key) -> None:
        """Forget a build."""
        self._latest.pop(key, None)
        known = self._known.pop(key, None)
        if known is not None:
            self.view.remove(known[1].uid)
            self._changed(known[1], None)

    def set_aside(self, key: Key) -> None:
        """Let nobody wait behind a build that the operator can't cope with, until something of it changes."""
        if key in self._known:
            version, other = self._known[key]
            self._store(key, version, replace(other, waiting_since=None))

    @contextmanager
    def expecting(self, seen: SeenBuild, status: Status) -> Iterator[None]:
        """Count a build as what it is about to be; where that does not come to pass, as what it was."""
        key, version, build = Key(seen.namespace, seen.name), seen.version, seen.build
        assert build is not None
        self._store(key, version, summarize(build.model_copy(update={"status": status})))
        try:
            yield
        except BaseException:
            if key in self._known and self._known[key][0] <= version:
                self._store(key, version, summarize(build))
            raise

    def _store(self, key: Key, version: int, other: BuildSummary) -> None:
        before = self._known.get(key)
        self._known[key] = (version, other)
        if before is None or before[1] != other:
            if before is not None and before[1].uid != other.uid:
                self.view.remove(before[1].uid)
            self.view.store(other)
            self._changed(before[1] if before else None, other)

    def _changed(self, old: BuildSummary | None, new: BuildSummary | None) -> None:
        """Wake whom a change concerns: whose turn has come, who is built from it, and who moves the same tags."""
        self._wake_children(old, new)
        if old is not None and (old.running or old.waiting_since) and not (new and new.running):
            for other in self.view.turns.admitted():
                if new is None or other.uid != new.uid:
                    self._wake(Key(other.namespace, other.name))
        if old is not None and new is not None and (old.repositories, old.tags) == (new.repositories, new.tags):
            return
        # The newer of two is told, so that it alone has to know.
        told = {
            Key(other.namespace, other.name): None
            for claim in (old, new)
            if claim is not None and claim.tags
            for repository in claim.repositories
            for other in self.view.pushing_to(repository)
            if (claim.created_at, claim.uid) < (other.created_at, other.uid)
        }
        for key in told:
            self._wake(key)

    def _wake_children(self, old: BuildSummary | None, new: BuildSummary | None) -> None:
        """Wake the builds that are built from one that has changed, and all below them where its own parents have."""
        build = new or old
        if build is None or (old is not None and new is not None and _offer(old) == _offer(new)):
            return
        others = old is None or new is None or old.parents != new.parents
        names, seen = list(self.view.built_from(build.namespace, build.name)), {build.name}
        while names:
            if (name := names.pop(0)) not in seen:
                seen.add(name)
                self._wake(Key(build.namespace, name))
                names += self.view.built_from(build.namespace, name) if others else ()


def _offer(build: BuildSummary) -> tuple[object, ...]:
    """Return what those see that are built from it."""
    return build.published, build.published_for, build.trouble, build.parents


def _key(manifest: Mapping[str, Any]) -> Key:
    return Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
