"""The events of one kind of object: a list, then watches, for ever, whatever the API server answers.

As client-go's reflector does it (https://pkg.go.dev/k8s.io/client-go/tools/cache#Reflector): a watch goes on from the
resource version of the last event, and where that is not possible there is another list, which also tells what was
deleted meanwhile. Nothing that an API server, a proxy or a network does ends a stream; it is opened again, later after
each failure in a row.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from .kube import PAGE, Kind, Kube, KubeError, Transient, error_of, items_of
from .logs import logger

_LOG = logger(__name__)

WATCH_SECONDS: Final = 240
"""The API server ends a watch after so long; the next one goes on from where it was."""
SILENCE_SECONDS: Final = 70.0
"""A watch without even a bookmark (sent each minute) for so long is dead and opened again."""
FIRST_PAUSE: Final = 0.5
"""Seconds until a stream that failed is opened again, before jitter; twice as long after each further failure."""
LONGEST_PAUSE: Final = 30.0
LONGEST_REQUESTED_PAUSE: Final = 120.0
"""For how long an API server may ask to be left alone (Retry-After)."""
STABLE_SECONDS: Final = 5.0
"""A watch that has been open for so long works: failures are counted from zero again."""
UNREADY_SECONDS: Final = 10.0
"""A stream that has failed for so long makes the operator unready."""
RELIST_SECONDS: Final = 200
"""Where a stream relists: a watch that ends later than so long after the last list is followed by another list."""
RELIST_FAILURES: Final = 4
"""After so many failures in a row the resource version is no longer trusted."""

Handle = Callable[[str, Mapping[str, Any]], None]
"""Takes the type of an event (ADDED, MODIFIED or DELETED) and the manifest: of an object that was deleted unseen no
more than its metadata."""


class _Known(NamedTuple):
    uid: str
    owners: list[Mapping[str, Any]]


class Stream:
    """See the module."""

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        namespace: str | None,
        handle: Handle,
        *,
        label_selector: str = "",
        page: int = PAGE,
        metadata_only: bool = False,
        relist: bool = False,
        seen: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            kube: The cluster.
            kind: What to watch.
            namespace: Where; None means everywhere.
            handle: Called for each event; what it raises is a bug, and has the list read again.
            label_selector: Which objects.
            page: Objects per page of a list.
            metadata_only: Ask for no more than the metadata of objects.
            relist: List again every few minutes, so that an event which got lost on the way counts late, not never.
                For objects of which few are at rest.
            seen: Called with the plural of the kind for each sign of life.
        """
        self._kube, self._kind, self._namespace, self._handle = kube, kind, namespace, handle
        self._selector, self._page, self._metadata_only, self._seen = label_selector, page, metadata_only, seen
        self._relist, self._listed_at = relist, 0.0
        self.listed = asyncio.Event()
        """Set once everything that exists has been handled."""
        self._version = ""
        self._known: dict[tuple[str, str], _Known] = {}
        self._failures = 0
        self._failing_since: float | None = None
        self._open_since: float | None = None
        self._attempted = self._now()

    @property
    def ready(self) -> bool:
        """Whether all that exists is known, and changes are told."""
        if not self.listed.is_set():
            return False
        return self._failing_since is None or self._stable or self._now() - self._failing_since < UNREADY_SECONDS

    @property
    def alive(self) -> bool:
        """Whether something still tries. An API server that is away is no reason to restart the operator."""
        return self._now() - self._attempted < WATCH_SECONDS + LONGEST_REQUESTED_PAUSE + 2 * SILENCE_SECONDS

    async def run(self) -> NoReturn:
        """List and watch until cancelled."""
        while True:
            self._attempted = self._now()
            pause = 0.0
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except KubeError as error:
                pause = self._failed(error, error.retry_after if isinstance(error, Transient) else 0.0)
            except Exception:  # noqa: BLE001 - the boundary that keeps one event from ending the operator
                _LOG.exception("bug: an event was not understood", resource=self._kind.plural)
                self._version = ""
                pause = self._pause()
            else:
                # A server that accepts and ends at once is no reason to ask it without a pause.
                pause = 0.0 if self._settled() else self._pause()
                if self._relist and self._now() - self._listed_at >= RELIST_SECONDS:
                    self._version = ""
            finally:
                self._open_since = None
            await asyncio.sleep(pause)

    async def _list(self) -> None:
        unseen = dict(self._known)
        version = ""
        async for page in self._kube.lists(
            self._kind,
            self._namespace,
            label_selector=self._selector,
            metadata_only=self._metadata_only,
            limit=self._page,
        ):
            self._lives()
            for manifest in items_of(page):
                unseen.pop(_name(manifest), None)
                self._take("ADDED", manifest)
            version = page["metadata"]["resourceVersion"]
        for (namespace, name), known in unseen.items():
            metadata = {"namespace": namespace, "name": name, "uid": known.uid, "ownerReferences": known.owners}
            self._take("DELETED", {"metadata": metadata})
        self._version, self._listed_at = version, self._now()
        self.listed.set()

    async def _watch(self) -> None:
        async with self._kube.watch(
            self._kind,
            self._namespace,
            resource_version=self._version,
            label_selector=self._selector,
            metadata_only=self._metadata_only,
            seconds=WATCH_SECONDS,
            silence=SILENCE_SECONDS,
        ) as events:
            self._open_since = self._now()
            self._lives()
            async for kind, manifest in events:
                self._lives()
                if kind == "ERROR":
                    # Most of them say that the version is too old (410), of none is it known that it is not.
                    self._version = ""
                    raise error_of(int(manifest.get("code") or 0), manifest, "", f"watch of {self._kind.plural}")
                if kind in {"ADDED", "MODIFIED", "DELETED"}:
                    self._take(kind, manifest)
                self._version = manifest["metadata"]["resourceVersion"]

    def _take(self, kind: str, manifest: Mapping[str, Any]) -> None:
        if kind == "DELETED":
            self._known.pop(_name(manifest), None)
        else:
            meta = manifest["metadata"]
            self._known[_name(manifest)] = _Known(meta["uid"], meta.get("ownerReferences", []))
        self._handle(kind, manifest)

    def _lives(self) -> None:
        self._attempted = self._now()
        self._seen(self._kind.plural)

    def _failed(self, error: KubeError, retry_after: float) -> float:
        """Return for how many seconds to pause after `error`."""
        # A connection that broke, or a server that is busy, says nothing against the version.
        if error.status not in {0, 429} and error.status < 500:  # noqa: PLR2004 - HTTP
            self._version = ""
        pause = max(self._pause(), min(retry_after, LONGEST_REQUESTED_PAUSE))
        if self._failures >= RELIST_FAILURES:
            self._version = ""
        _LOG.warning(
            "watch failed, it is opened again",
            resource=self._kind.plural,
            namespace=self._namespace,
            error=str(error),
            seconds=round(pause, 1),
        )
        return pause

    def _pause(self) -> float:
        """Count a failure; return the seconds until the next try."""
        self._settled()
        if self._failing_since is None:
            self._failing_since = self._now()
        nominal = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return nominal * (0.5 + random.random() / 2)  # noqa: S311 - not for secrets

    def _settled(self) -> bool:
        """Return whether the watch worked, and forget the failures before it if it did."""
        if self._stable:
            self._failures, self._failing_since = 0, None
            return True
        return False

    @property
    def _stable(self) -> bool:
        return self._open_since is not None and self._now() - self._open_since >= STABLE_SECONDS

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _name(manifest: Mapping[str, Any]) -> tuple[str, str]:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
