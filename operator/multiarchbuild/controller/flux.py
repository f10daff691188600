"""Objects of Flux that builds take their source from: read live for each look, and watched where the cluster has them.

Flux is optional: its kinds may appear and go while the operator runs. The API server tells everybody which kinds it
serves, whereas a watch on CustomResourceDefinitions would need rights on the whole cluster.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.source import FluxKind, FluxSource
from multiarchbuild.plan.flux import GROUP_VERSION, PLURALS, Artifact, artifact_from, missing

from .changes import Changes, flux_view
from .kube import Forbidden, Kind, Kube, KubeError, NotFound, Transient
from .logs import logger
from .seen import version_of
from .stream import Stream
from .watch import Key

_LOG = logger(__name__)

SERVED_SECONDS: Final = 30.0
"""Between two looks at which kinds of Flux the cluster has."""
KINDS: Final = {kind: Kind(GROUP_VERSION, kind, plural) for kind, plural in PLURALS.items()}


class Ref(NamedTuple):
    """An object of Flux."""

    kind: FluxKind
    namespace: str
    name: str


class Sources:
    """Which builds take their source from which object; a look at a build tells, so that it is never incomplete."""

    def __init__(self, kube: Kube, *, enabled: bool) -> None:
        """`enabled`: whether the operator may have to do with Flux at all."""
        self._kube, self._enabled = kube, enabled
        self._by_key: dict[Key, Ref] = {}
        self._by_ref: defaultdict[Ref, set[Key]] = defaultdict(set)
        self._newest: dict[Ref, int] = {}
        """Newest version that a watch has shown, of objects that builds use."""

    async def artifact_for(self, key: Key, build: MultiArchBuild) -> Artifact | None:
        """Return what Flux says of the source of a build, None where that is no object of Flux. Raises `KubeError`."""
        wanted = build.spec.source.flux
        if wanted is None:
            self.forget(key)
            return None
        # First: a change that comes while it is read has the build looked at once more.
        ref = Ref(wanted.kind, key.namespace, wanted.name)
        self._register(key, ref)
        if not self._enabled:
            return missing(wanted, "is not watched: start the operator with --flux (chart: flux.enabled)")
        return await self._read(ref, wanted)

    def seen(self, ref: Ref, version: int) -> Iterable[Key]:
        """Take in what a watch shows, and return the builds whose source is this object."""
        if users := tuple(self._by_ref.get(ref, ())):
            self._newest[ref] = max(version, self._newest.get(ref, 0))
        return users

    def forget(self, key: Key) -> None:
        """Forget a build."""
        ref = self._by_key.pop(key, None)
        if ref is not None:
            self._by_ref[ref].discard(key)
            if not self._by_ref[ref]:
                del self._by_ref[ref]
                self._newest.pop(ref, None)

    def _register(self, key: Key, ref: Ref) -> None:
        if self._by_key.get(key) != ref:
            self.forget(key)
            self._by_key[key] = ref
            self._by_ref[ref].add(key)

    async def _read(self, ref: Ref, wanted: FluxSource) -> Artifact:
        namespace = ref.namespace
        try:
            found = await self._kube.get(KINDS[ref.kind], namespace, ref.name)
            if version_of(found) < self._newest.get(ref, 0):
                # Nothing else would have it looked at again.
                raise Transient(f"{wanted.kind} {namespace}/{wanted.name} was read as it was before its last change")
            return artifact_from(found, wanted)
        except NotFound as error:
            # For a path that it does not serve, the API server answers with a text and no Status.
            if not error.reason:
                return missing(
                    wanted, f"is of a kind that is not installed in this cluster: install Flux ({GROUP_VERSION})"
                )
            return missing(wanted, f"does not exist in namespace {namespace!r}: create it, or correct source.flux")
        except Forbidden:
            return missing(wanted, "cannot be read by the operator: grant it the permission (chart: flux.enabled)")


class Follower:
    """Watches those kinds of Flux that the cluster has, whatever they are at the moment."""

    def __init__(self, kube: Kube, watch: Callable[[FluxKind], Coroutine[Any, Any, None]]) -> None:
        """`watch` follows a kind until it is cancelled."""
        self._kube, self._watch = kube, watch
        self._running: dict[FluxKind, asyncio.Task[None]] = {}

    async def run(self) -> NoReturn:
        """Follow, for ever. Nothing else depends on it: what fails is tried again."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(SERVED_SECONDS)
        finally:
            for kind in tuple(self._running):
                self._running.pop(kind).cancel()

    async def look(self) -> None:
        """Start and stop streams for what the API server serves now."""
        try:
            plurals = await self._kube.served(GROUP_VERSION)
        except KubeError as error:
            _LOG.warning("the kinds of Flux are not known", error=str(error))
            return
        served = {kind for kind, plural in PLURALS.items() if plural in plurals}
        for kind in self._running.keys() - served:
            self._running.pop(kind).cancel()
        for kind in sorted(served - self._running.keys()):
            self._running[kind] = asyncio.create_task(self._watch(kind))
            _LOG.info("watching", kind=kind)


def streams(namespaces: Sequence[str]) -> int:
    """Return how many streams there are at most for these namespaces."""
    return len(KINDS) * (len(namespaces) or 1)


async def follow(kube: Kube, namespaces: Sequence[str], sources: Sources, changed: Callable[[Key], None]) -> NoReturn:
    """Have builds looked at when what they take their source from has changed."""

    async def watch(kind: FluxKind) -> None:
        changes = Changes(flux_view)

        def handle(event: str, manifest: Mapping[str, Any]) -> None:
            meta = manifest["metadata"]
            users = sources.seen(Ref(kind, meta["namespace"], meta["name"]), version_of(manifest))
            if changes.changed(event, manifest):
                for key in users:
                    changed(key)

        async with asyncio.TaskGroup() as group:
            for namespace in namespaces or (None,):
                # Not `seen`: that streams of Flux are silent, or gone, is no matter of the operator's health.
                group.create_task(Stream(kube, KINDS[kind], namespace, handle).run())

    await Follower(kube, watch).run()
