"""Objects of Flux that builds take their source from: read live for each look, and watched where the cluster has them.

Flux is optional: its kinds may appear and go while the operator runs. The API server tells everybody which kinds it
serves, whereas a watch on CustomResourceDefinitions would need rights on the whole cluster.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

import kopf
from kubernetes.aio.client import Configuration

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.source import FluxKind, FluxSource
from multiarchbuild.plan.flux import GROUP_VERSION, PLURALS, Artifact, artifact_from, missing

from .kube import Forbidden, Kind, Kube, KubeError, NotFound
from .logs import logger
from .watch import Key, Sink, Watcher

_LOG = logger(__name__)

SERVED_SECONDS: Final = 30.0
"""Between two looks at which kinds of Flux the cluster has."""
_STOP_SECONDS: Final = 0.7
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

    async def artifact_for(self, key: Key, build: MultiArchBuild) -> Artifact | None:
        """Return what Flux says of the source of a build, None where that is no object of Flux. Raises `KubeError`."""
        wanted = build.spec.source.flux
        if wanted is None:
            self.forget(key)
            return None
        # First: a change that comes while it is read has the build looked at once more.
        self._register(key, Ref(wanted.kind, key.namespace, wanted.name))
        if not self._enabled:
            return missing(wanted, "is not looked at: let the operator run with --flux (chart: flux.enabled)")
        return await self._read(key.namespace, wanted)

    def users(self, ref: Ref) -> Iterable[Key]:
        """Return the builds whose source is this object."""
        return tuple(self._by_ref.get(ref, ()))

    def forget(self, key: Key) -> None:
        """Forget a build."""
        ref = self._by_key.pop(key, None)
        if ref is not None:
            self._by_ref[ref].discard(key)
            if not self._by_ref[ref]:
                del self._by_ref[ref]

    def _register(self, key: Key, ref: Ref) -> None:
        if self._by_key.get(key) != ref:
            self.forget(key)
            self._by_key[key] = ref
            self._by_ref[ref].add(key)

    async def _read(self, namespace: str, wanted: FluxSource) -> Artifact:
        try:
            return artifact_from(await self._kube.get(KINDS[wanted.kind], namespace, wanted.name), wanted)
        except NotFound as error:
            # For a path that it does not serve, the API server answers with a text and no Status.
            if not error.reason:
                return missing(wanted, f"is of a kind that this cluster does not have: install Flux ({GROUP_VERSION})")
            return missing(wanted, f"does not exist in namespace {namespace!r}: create it, or correct source.flux")
        except Forbidden:
            return missing(wanted, "may not be read by the operator: give it the right to (chart: flux.enabled)")


class FluxWatcher(Watcher):
    """The watch streams for one kind of Flux: the end of one takes others in its thread a while to notice."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Configuration]],
        namespaces: Sequence[str],
        sink: Sink,
        changed: Callable[[Ref], None],
        kind: FluxKind,
    ) -> None:
        """`changed` is called for each event, in the event loop that calls `start`."""
        super().__init__(connect, namespaces, sink)
        self._kind, self._changed = kind, changed

    def _handle(self, registry: kopf.OperatorRegistry) -> None:
        group, _, version = GROUP_VERSION.partition("/")

        @kopf.on.event(group, version, PLURALS[self._kind], registry=registry)
        async def source(namespace: str | None, name: str | None, **_: Any) -> None:
            self._event(PLURALS[self._kind])
            self._call(self._changed, Ref(self._kind, str(namespace), str(name)))


class Follower:
    """Watches those kinds of Flux that the cluster has, whatever they are at the moment."""

    def __init__(self, kube: Kube, watcher: Callable[[FluxKind], Watcher]) -> None:
        """`watcher` makes the streams for a kind."""
        self._kube, self._watcher = kube, watcher
        self._running: dict[FluxKind, tuple[Watcher, asyncio.Future[BaseException | None]]] = {}
        self._told: dict[FluxKind, str] = {}

    async def run(self) -> NoReturn:
        """Follow, for ever. Nothing else depends on it: what fails is tried again."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(SERVED_SECONDS)
        finally:
            for kind in tuple(self._running):
                await self._stop(kind)

    async def look(self) -> None:
        """Start and stop streams for what the API server serves now."""
        for kind, (_, ended) in tuple(self._running.items()):
            if ended.done():
                # A kind that has gone, or rights that are missing.
                del self._running[kind]
                self._tell(kind, repr(ended.result()))
        try:
            plurals = await self._kube.served(GROUP_VERSION)
        except KubeError as error:
            _LOG.warning("the kinds of Flux are not known", error=str(error))
            return
        served = {kind for kind, plural in PLURALS.items() if plural in plurals}
        for kind in self._running.keys() - served:
            await self._stop(kind)
        for kind in sorted(served - self._running.keys()):
            watcher = self._watcher(kind)
            self._running[kind] = watcher, watcher.start()
            _LOG.info("watching", kind=kind)

    async def _stop(self, kind: FluxKind) -> None:
        watcher, _ = self._running.pop(kind)
        await asyncio.to_thread(watcher.stop, _STOP_SECONDS)

    def _tell(self, kind: FluxKind, error: str) -> None:
        if self._told.get(kind) != error:
            _LOG.warning("watching has ended, it is tried again", kind=kind, error=error)
        self._told[kind] = error


async def follow(
    kube: Kube,
    connect: Callable[[], Awaitable[Configuration]],
    namespaces: Sequence[str],
    sources: Sources,
    sink: Sink,
) -> NoReturn:
    """Have builds looked at when what they take their source from has changed."""

    def changed(ref: Ref) -> None:
        for key in sources.users(ref):
            sink.build_changed(key)

    # Not `seen`: that streams of Flux are silent, or gone, is no matter of the operator's health.
    quiet = replace(sink, seen=lambda _: None)
    await Follower(kube, partial(FluxWatcher, connect, namespaces, quiet, changed)).run()
