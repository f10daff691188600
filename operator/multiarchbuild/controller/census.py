"""All builds of the cluster as the others see them: whose turn it is, and who moves which tag.

A copy of what the watch shows, kept because listing all builds at each look at one does not scale. It is read from
the API server when the operator starts, so that nothing is decided upon half of it, and is nobody's only memory.
What is decided enters it at once: two builds that are looked at at the same time never take the same turn.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import Status
from multiarchbuild.plan.others import Other, summarized
from multiarchbuild.plan.policy import Concurrency
from multiarchbuild.plan.turns import admitted

from .kube import BUILDS, Kube, KubeError
from .logs import logger
from .watch import Key

_LOG = logger(__name__)

PAGE: Final = 20
"""Builds per page: each may hold 256 KiB of inline files."""
PRUNE_SECONDS: Final = 300.0
"""Between two looks for builds whose deletion the watch has missed."""


class Census:
    """See the module. All calls come from one event loop."""

    def __init__(self, kube: Kube, namespaces: Sequence[str], limits: Concurrency, wake: Callable[[Key], None]) -> None:
        """Know nothing yet.

        Args:
            kube: The cluster.
            namespaces: Which ones are served; none means all.
            limits: How many runs may go on at the same time.
            wake: Called for each build that has to be looked at because another has changed.
        """
        self._kube, self._namespaces, self._limits, self._wake = kube, namespaces or (None,), limits, wake
        self._known: dict[Key, tuple[int, Other]] = {}

    @property
    def others(self) -> tuple[Other, ...]:
        """All builds, the one that is looked at included."""
        return tuple(other for _, other in self._known.values())

    async def take(self) -> None:
        """Read all builds. Raises `KubeError`."""
        for namespace in self._namespaces:
            async for page in self._kube.pages(BUILDS, namespace, limit=PAGE):
                for manifest in page:
                    self.seen("ADDED", manifest)

    async def prune(self) -> None:
        """Forget builds that do not exist any more, again and again."""
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            before = set(self._known)
            existing: set[Key] = set()
            try:
                for namespace in self._namespaces:
                    for manifest in await self._kube.list(BUILDS, namespace, metadata_only=True):
                        existing.add(_key(manifest))
            except KubeError as error:
                _LOG.warning("builds not listed", error=str(error))
                continue
            for key in before - existing:
                self.gone(key)

    def seen(self, kind: str | None, manifest: Mapping[str, Any]) -> None:
        """Take in what the watch shows."""
        key = _key(manifest)
        if kind == "DELETED" or "deletionTimestamp" in manifest["metadata"]:
            self.gone(key)
            return
        version = _version(manifest)
        if key in self._known and self._known[key][0] >= version:
            return
        try:
            other = summarized(MultiArchBuild.model_validate(manifest))
        except ValidationError:
            self.gone(key)
            return
        self._store(key, version, other)

    def gone(self, key: Key) -> None:
        """Forget a build."""
        known = self._known.pop(key, None)
        if known is not None:
            self._changed(known[1], None)

    def set_aside(self, key: Key) -> None:
        """Let nobody wait behind a build that the operator can't cope with, until something of it changes."""
        if key in self._known:
            version, other = self._known[key]
            self._store(key, version, replace(other, waiting_since=None))

    @contextmanager
    def expecting(self, build: MultiArchBuild, manifest: Mapping[str, Any], status: Status) -> Iterator[None]:
        """Count `build` as what it is about to be; where that does not come to pass, as what it was."""
        key, version = _key(manifest), _version(manifest)
        self._store(key, version, summarized(build.model_copy(update={"status": status})))
        try:
            yield
        except BaseException:
            if key in self._known and self._known[key][0] <= version:
                self._store(key, version, summarized(build))
            raise

    def _store(self, key: Key, version: int, other: Other) -> None:
        before = self._known.get(key)
        self._known[key] = (version, other)
        if before is None or before[1] != other:
            self._changed(before[1] if before else None, other)

    def _changed(self, old: Other | None, new: Other | None) -> None:
        """Wake whom a change concerns: those whose turn has come, and those that move the same tags."""
        if old is not None and (old.running or old.waiting_since) and not (new and new.running):
            for other in admitted(self.others, self._limits, datetime.now(UTC)):
                if new is None or other.uid != new.uid:
                    self._wake(Key(other.namespace, other.name))
        if old is not None and new is not None and (old.image, old.tags) == (new.image, new.tags):
            return
        claims = [(each, (each.created_at, each.uid)) for each in (old, new) if each and each.tags]
        for other in self.others:
            age = (other.created_at, other.uid)
            # The newer of two is told, so that it alone has to know.
            if any(claim.image == other.image and claimed < age for claim, claimed in claims):
                self._wake(Key(other.namespace, other.name))


def _key(manifest: Mapping[str, Any]) -> Key:
    return Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _version(manifest: Mapping[str, Any]) -> int:
    # Comparable within a resource by the API's own promise: https://kep.k8s.io/5504.
    return int(manifest["metadata"]["resourceVersion"])
