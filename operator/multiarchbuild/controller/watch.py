"""Watches with kopf, and does nothing else: every event becomes a call that names what to look at.

kopf runs in a thread with its own event loop: it takes signals and ends all tasks of its loop when it stops,
and neither should be the operator's way to stop. Its handlers are `on.event` only, which store nothing: no
finalizer, no annotation, no progress in status.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import aiohttp
import kopf
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from multiarchbuild.api.resource import GROUP, KIND, PLURAL, VERSION
from multiarchbuild.plan.children import user_namespaces

from .logs import logger

_LOG = logger(__name__)

INACTIVITY_SECONDS: Final = 70.0
"""A stream without even a bookmark (sent each minute) for so long is dead and opened anew."""
STREAM_SECONDS: Final = 240
"""The API server ends a stream after so long; it goes on in another request from where it was."""
ALIVE_SECONDS: Final = STREAM_SECONDS + 2 * INACTIVITY_SECONDS
"""Each stream shows life at least this often, or something is wrong with it."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by=multiarchbuild"
RESOURCES: Final = (PLURAL, "pods", "nodes")


class Key(NamedTuple):
    """Which build."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sink:
    """What is called in the operator's event loop."""

    build_changed: Callable[[Key], None]
    """The build, or one of its pods, has changed."""
    nodes_changed: Callable[[], None]
    """A node came, went, or changed in something that placement looks at."""
    seen: Callable[[str], None]
    """The watch of this resource (plural) showed life."""
    build_seen: Callable[[str | None, Mapping[str, Any]], None] = lambda _kind, _manifest: None
    """A build as the watch shows it, with the type of the event; called before `build_changed`."""


@dataclass(slots=True)
class Vital:
    """Signs of life of the streams, in `time.monotonic()` seconds. Written by the thread, read by anyone."""

    attempted: float = field(default_factory=time.monotonic)
    """When a stream was last asked for, or gave something."""
    accepted: dict[str, float] = field(default_factory=dict)
    """By path of the stream: when it was last accepted by the API server, or gave something."""


class Watcher:
    """The watch streams, from `start` to `stop`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Configuration]],
        namespaces: Sequence[str],
        sink: Sink,
    ) -> None:
        """Prepare.

        Args:
            connect: Returns how to reach the cluster, called again whenever credentials have expired.
            namespaces: Which ones to watch; none means all.
            sink: What to call, in the event loop that calls `start`.
        """
        self._connect, self._namespaces, self._sink = connect, tuple(namespaces), sink
        self._vital = Vital()
        self._nodes: dict[str, object] = {}
        self._operator: asyncio.Task[None] | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ended: asyncio.Future[BaseException | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> asyncio.Future[BaseException | None]:
        """Start to watch. The future ends when watching does, with the error that ended it."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._vital = Vital()
        self._thread.start()
        return self._ended

    def stop(self, seconds: float) -> None:
        """Stop watching, and wait for it no longer than this. A stream holds nothing that could be lost."""
        if self._thread_loop is not None and self._operator is not None and self._thread.is_alive():
            self._thread_loop.call_soon_threadsafe(self._operator.cancel)
            self._thread.join(seconds)

    @property
    def streams(self) -> int:
        """How many streams there are when all is well."""
        namespaced = len(self._namespaces) or 1
        return 2 * namespaced + 1

    @property
    def alive(self) -> bool:
        """Whether something still tries. An API server that is away is no reason to restart the operator."""
        return self._thread.is_alive() and time.monotonic() - self._vital.attempted < ALIVE_SECONDS

    @property
    def synced(self) -> bool:
        """Whether all streams were opened and have shown life lately."""
        now = time.monotonic()
        lively = [at for at in self._vital.accepted.values() if now - at < ALIVE_SECONDS]
        return self._thread.is_alive() and len(lively) >= self.streams

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._watch())
        except BaseException as caught:  # noqa: BLE001 - handed to the operator's loop, which stops for it
            error = caught
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish, error)

    def _finish(self, error: BaseException | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(error)

    async def _watch(self) -> None:
        self._thread_loop = asyncio.get_running_loop()
        self._operator = asyncio.create_task(
            kopf.operator(
                registry=self._registry(),
                settings=_settings(),
                # Unused without peering, but else kopf asks for the user's name, which a container's uid may not have.
                identity=cast("Any", "multiarchbuild"),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
            )
        )
        await self._operator

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            configuration = await self._connect()
            return kopf.AiohttpSession(server=configuration.host, aiohttp_session=await self._session(configuration))

        self._handle(registry)
        return registry

    def _handle(self, registry: kopf.OperatorRegistry) -> None:
        """Register what is watched."""

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def build(namespace: str | None, name: str | None, event: Mapping[str, Any], **_: Any) -> None:
            self._event(PLURAL)
            self._call(self._sink.build_seen, event["type"], event["object"])
            self._call(self._sink.build_changed, Key(str(namespace), str(name)))

        @kopf.on.event("", "v1", "pods", registry=registry)
        async def pod(namespace: str | None, meta: Mapping[str, Any], **_: Any) -> None:
            self._event("pods")
            owner = owner_of(meta)
            if owner:
                self._call(self._sink.build_changed, Key(str(namespace), owner))

        @kopf.on.event("", "v1", "nodes", registry=registry)
        async def node(event: Mapping[str, Any], **_: Any) -> None:
            self._event("nodes")
            if self._placement_changed(event["type"], event["object"]):
                self._call(self._sink.nodes_changed)

    async def _session(self, configuration: Configuration) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._asked)
        trace.on_request_end.append(self._answered)
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=RESTClientObject(configuration).ssl_context),
            headers={"Authorization": token, "User-Agent": "multiarchbuild"} if token else {},
            proxy=configuration.proxy,
            trust_env=True,
            trace_configs=[trace],
        )

    async def _asked(self, _session: object, _context: object, _: aiohttp.TraceRequestStartParams) -> None:
        self._vital.attempted = time.monotonic()

    async def _answered(self, _session: object, _context: object, params: aiohttp.TraceRequestEndParams) -> None:
        url = params.url
        if params.response.ok and url.query.get("watch") == "true":
            self._vital.accepted[url.path] = time.monotonic()
            self._call(self._sink.seen, url.path.rpartition("/")[2])

    def _event(self, resource: str) -> None:
        self._vital.attempted = time.monotonic()
        self._call(self._sink.seen, resource)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _placement_changed(self, kind: str | None, node: Mapping[str, Any]) -> bool:
        """Tell heartbeats, of which each node sends many, from what matters."""
        name = node["metadata"]["name"]
        if kind == "DELETED":
            return self._nodes.pop(name, None) is not None
        now = placement_view(node)
        changed = self._nodes.get(name) != now
        self._nodes[name] = now
        return changed


def placement_view(node: Mapping[str, Any]) -> object:
    """Return what placement looks at in a v1 Node, as something that can be compared."""
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", ())}
    spec = node.get("spec", {})
    taints = tuple((taint["key"], taint.get("value"), taint["effect"]) for taint in spec.get("taints", ()))
    labels = dict(node["metadata"].get("labels", {}))
    ready, cordoned = conditions.get("Ready"), spec.get("unschedulable", False)
    return node["metadata"]["uid"], ready, cordoned, taints, labels, user_namespaces(node)


def owner_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the name of the MultiArchBuild that controls an object, if one does."""
    for reference in metadata.get("ownerReferences", ()):
        group = reference["apiVersion"].partition("/")[0]
        if reference.get("controller") and reference["kind"] == KIND and group == GROUP:
            return str(reference["name"])
    return None


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.watching.inactivity_timeout = INACTIVITY_SECONDS
    settings.watching.server_timeout = STREAM_SECONDS
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["pods"] = MANAGED_BY
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 3, 5, 8, 13)
    settings.queueing.exit_timeout = 0.1
    settings.process.ultimate_exiting_timeout = None
    return settings
