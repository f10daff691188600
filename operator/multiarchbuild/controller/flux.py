"""Objects of Flux that builds take their source from: read live for each look, and watched where the cluster has them.

Flux is optional: its kinds may appear and go while the operator runs. The API server tells everybody which kinds it
serves, whereas a watch on CustomResourceDefinitions would need rights on the whole cluster.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
    """The watch streams for some kinds of Flux."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Configuration]],
        namespaces: Sequence[str],
        sink: Sink,
        kinds: Iterable[FluxKind],
        changed: Callable[[Ref], None],
    ) -> None:
        """`changed` is called for each event, in the event loop that calls `start`."""
        super().__init__(connect, namespaces, sink)
        self._kinds, self._changed = tuple(kinds), changed

    def _handle(self, registry: kopf.OperatorRegistry) -> None:
        for kind in self._kinds:
            self._handle_kind(registry, kind)

    def _handle_kind(self, registry: kopf.OperatorRegistry, kind: FluxKind) -> None:
        group, _, version = GROUP_VERSION.partition("/")

        @kopf.on.event(group, version, PLURALS[kind], registry=registry, id=PLURALS[kind])
        async def source(namespace: str | None, name: str | None, **_: Any) -> None:
            self._event(PLURALS[kind])
            self._call(self._changed, Ref(kind, str(namespace), str(name)))


async def follow(kube: Kube, watcher: Callable[[frozenset[FluxKind]], Watcher]) -> NoReturn:
    """Watch those kinds of Flux that the cluster has, whatever they are at the moment; `watcher` makes the streams."""
    watched: frozenset[FluxKind] = frozenset()
    running: Watcher | None = None
    ended: asyncio.Future[BaseException | None] | None = None
    told = ""
    try:
        while True:
            if ended is not None and ended.done():
                # Kinds that have gone, or rights that are missing. Nothing else depends on these streams.
                if told != (said := repr(ended.result())):
                    _LOG.warning("watching Flux has ended, it is tried again", error=said)
                told, watched, running, ended = said, frozenset(), None, None
            served = await _served(kube, watched)
            if served != watched:
                if running is not None:
                    await asyncio.to_thread(running.stop, _STOP_SECONDS)
                watched, running = served, watcher(served) if served else None
                ended = running.start() if running else None
                _LOG.info("watching Flux", kinds=sorted(served))
            await asyncio.sleep(SERVED_SECONDS)
    finally:
        if running is not None:
            await asyncio.to_thread(running.stop, _STOP_SECONDS)


async def _served(kube: Kube, before: frozenset[FluxKind]) -> frozenset[FluxKind]:
    """Return which kinds the API server serves now; `before` where it does not say."""
    try:
        plurals = await kube.served(GROUP_VERSION)
    except KubeError as error:
        _LOG.warning("the kinds of Flux are not known", error=str(error))
        return before
    return frozenset(kind for kind, plural in PLURALS.items() if plural in plurals)
