"""Which streams the operator needs, and what their events mean: calls that name what to look at."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .changes import Changes, build_view, node_view
from .kube import BUILDS, CLAIMS, CONFIG_MAPS, NODES, PODS, Kind, Kube
from .stream import Handle, Stream

MANAGED_BY: Final = "app.kubernetes.io/managed-by=multiarchbuild"
BUILDS_PAGE: Final = 20
"""Builds per page: each may hold 256 KiB of inline files."""
LARGE_PAGE: Final = 100
"""Pods and nodes per page: some 10 KiB each."""


class Key(NamedTuple):
    """Which build."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sink:
    """What is called for events."""

    build_changed: Callable[[Key], None]
    """Somebody changed the build: its spec, an annotation that is read, or it is being deleted."""
    seen: Callable[[str], None]
    """The watch of this resource (plural) showed life."""
    build: Handle
    """A build as the watch shows it, with the type of the event; called before `build_changed`."""
    pod: Handle
    """A pod of a build, likewise."""
    config_map: Handle
    """The metadata of a ConfigMap of a build, likewise."""
    claim: Handle
    """A PersistentVolumeClaim of a build, likewise; where builds may have any."""
    node: Handle
    """A node that came, went, or changed in something that placement looks at, likewise."""


class Watcher:
    """The streams of builds, pods and nodes."""

    def __init__(self, kube: Kube, namespaces: Sequence[str], sink: Sink, *, claims: bool = False) -> None:
        """Prepare.

        Args:
            kube: The cluster.
            namespaces: Which ones to watch; none means all.
            sink: What to call.
            claims: Whether builds may have volumes: without, the operator needs no rights for them.
        """
        self._sink = sink
        scopes = tuple(namespaces) or (None,)
        self._builds_changes, self._nodes_changes = Changes(build_view), Changes(node_view)

        def stream(kind: Kind, scope: str | None, handle: Handle, **options: Any) -> Stream:
            return Stream(kube, kind, scope, handle, seen=sink.seen, **options)

        self._streams = [stream(NODES, None, self._node, page=LARGE_PAGE)]
        for scope in scopes:
            self._streams += [
                stream(PODS, scope, sink.pod, label_selector=MANAGED_BY, page=LARGE_PAGE, relist=True),
                stream(CONFIG_MAPS, scope, sink.config_map, label_selector=MANAGED_BY, metadata_only=True),
                stream(BUILDS, scope, self._build, page=BUILDS_PAGE),
            ]
            if claims:
                self._streams.append(stream(CLAIMS, scope, sink.claim, label_selector=MANAGED_BY, page=LARGE_PAGE))

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for stream in self._streams:
                group.create_task(stream.run())

    async def listed(self) -> None:
        """Return once all that exists was seen: nothing is decided upon half of it."""
        for stream in self._streams:
            await stream.listed.wait()

    @property
    def alive(self) -> bool:
        """Whether every stream still tries."""
        return all(stream.alive for stream in self._streams)

    @property
    def synced(self) -> bool:
        """Whether everything that exists was seen, and changes are told."""
        return all(stream.ready for stream in self._streams)

    def _build(self, kind: str, manifest: Mapping[str, Any]) -> None:
        self._sink.build(kind, manifest)
        if self._builds_changes.changed(kind, manifest):
            self._sink.build_changed(Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))

    def _node(self, kind: str, manifest: Mapping[str, Any]) -> None:
        if self._nodes_changes.changed(kind, manifest):
            self._sink.node(kind, manifest)


def streams(namespaces: Sequence[str], *, claims: bool = False) -> int:
    """Return how many streams there are for these namespaces."""
    return (4 if claims else 3) * (len(namespaces) or 1) + 1
