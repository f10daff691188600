"""The Kubernetes API as plain dicts, and what can go wrong with it.

KubeError
├── NotFound        404
├── AlreadyExists   409: a create found an object of that name
├── Conflict        409: the object has changed meanwhile, or is another of the same name
├── Invalid         400, 413, 422, …: the same request can never succeed
├── Forbidden       403: RBAC, quota, Pod Security or an admission webhook said no
└── Transient       401, 410, 429, 5xx and network errors: may succeed when repeated
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from yarl import URL

from multiarchbuild.api.pointers import pointer
from multiarchbuild.api.resource import GROUP, KIND, PLURAL, VERSION
from multiarchbuild.oci.proxies import Proxies
from multiarchbuild.plan.children import STEP_CONTAINER, Requests

FIELD_MANAGER: Final = "multiarchbuild"
"""Owner of the fields of `status` (server-side apply)."""
REQUEST_SECONDS: Final = 30.0
"""Time for one request. Without it a dead connection would hold a worker for the client's five minutes."""
REFUSAL_BYTES: Final = 64 * 1024
"""What is read of an answer that is no stream."""
LOG_SECONDS: Final = 600.0
"""A log that is followed and brings nothing for so long is asked for again: its connection may be dead."""
READ_BYTES: Final = 2**21
"""Buffer of a connection: an event of a watch may be large."""
_JSON: Final = "application/json"
_METADATA: Final = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"
"""Asks for no more than the metadata of an object, whatever it is that was written."""
Objects = list[dict[str, Any]]
PAGE: Final = 500
"""Objects per page of a list, as kubectl asks for."""
IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubeError(Exception):
    """A request that the API server did not fulfil."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", causes: Sequence[str] = ()) -> None:
        """Keep what the server's `metav1.Status` says."""
        super().__init__(message)
        self.status = status
        """HTTP status, 0 when there was no answer."""
        self.reason = reason
        """`reason` of the Status, such as AlreadyExists."""
        self.causes = tuple(causes)
        """Reasons in `details.causes` of the Status."""


class NotFound(KubeError):  # noqa: N818 - named as the API's own reasons
    """The object, its namespace or its kind does not exist."""


class AlreadyExists(KubeError):  # noqa: N818
    """An object of this name exists."""


class Conflict(KubeError):  # noqa: N818
    """The object has changed since it was read, or a precondition does not hold."""


class Invalid(KubeError):  # noqa: N818
    """The request is wrong and stays wrong."""


class Forbidden(KubeError):  # noqa: N818
    """The server understood and refused; its message says who refused and why."""

    @property
    def namespace_terminating(self) -> bool:
        """Whether it was refused only because the namespace is being deleted."""
        return "NamespaceTerminating" in self.causes


class Transient(KubeError):  # noqa: N818
    """May succeed when it is repeated."""

    def __init__(self, message: str, *, retry_after: float = 0.0, **details: Any) -> None:
        """`retry_after`: seconds that the server asked to wait."""
        super().__init__(message, **details)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and where the API serves it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the path of a collection, an object or a subresource."""
        root = "api" if "/" not in self.api_version else "apis"
        parts = [root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural, quote(name, safe=""), subresource]
        return "/" + "/".join(filter(None, parts))


BUILDS: Final = Kind(f"{GROUP}/{VERSION}", KIND, PLURAL)
PODS: Final = Kind("v1", "Pod", "pods")
CONFIG_MAPS: Final = Kind("v1", "ConfigMap", "configmaps")
CLAIMS: Final = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NODES: Final = Kind("v1", "Node", "nodes")
EVENTS: Final = Kind("events.k8s.io/v1", "Event", "events")


def _existing(paths: str) -> bool:
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


async def load_configuration() -> Configuration:
    """Return how to reach the cluster: `KUBECONFIG`, else the pod's ServiceAccount, else `~/.kube/config`.

    Raises:
        kubernetes.aio.config.ConfigException: there is none of them, or it is not usable.
    """
    configuration = Configuration()
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig and IN_CLUSTER_NAMESPACE.exists():
        config.load_incluster_config(client_configuration=configuration)
        return configuration
    # The client's own default is read from the environment once, when it is imported.
    location = kubeconfig or str(Path.home() / ".kube" / "config")
    if not _existing(location):
        raise config.ConfigException(
            f"no cluster to work with: {location} does not exist and this is not a pod with a ServiceAccount; "
            "set KUBECONFIG"
        )
    await config.load_kube_config(location, client_configuration=configuration, persist_config=False)
    return configuration


def own_namespace() -> str:
    """Return the namespace that the operator lives in: of its pod, else of the kubeconfig's context."""
    if not os.environ.get("KUBECONFIG") and IN_CLUSTER_NAMESPACE.exists():
        return IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
    _, context = config.list_kube_config_contexts(os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"))
    return str(context["context"].get("namespace") or "default")


class Which(TypedDict, total=False):
    """Which objects to list, and how much of them."""

    label_selector: str
    field_selector: str
    """Such as `metadata.name=app`."""
    metadata_only: bool
    """Whether to ask for `PartialObjectMetadata`, that is without spec, status and data."""
    limit: int
    """Objects per page."""


class Kube:
    """A client with one method for each thing the operator does. Every method raises `KubeError`."""

    def __init__(self, configuration: Configuration, *, streams: int = 0) -> None:
        """Use what `load_configuration` returned. To be called in the event loop that makes the requests.

        `streams`: how many logs and watches are followed at most, for which there are connections besides those for
        requests.
        """
        self.api_client = ApiClient(configuration)
        """For the Lease, with connections of its own: nothing else keeps it waiting."""
        self.api_client.user_agent = FIELD_MANAGER
        self._configuration, self._server = configuration, str(configuration.host)
        self._proxy = _proxy(configuration)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=configuration.connection_pool_maxsize + streams, ssl=self.api_client.rest_client.ssl_context
            ),
            headers={"User-Agent": FIELD_MANAGER},
            read_bufsize=READ_BYTES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self.api_client.close()

    async def served(self, group_version: str) -> frozenset[str]:
        """Return the plurals of what the API server serves in a group and version, none where it has none.

        Subresources are among them, as `pods/resize`.
        """
        try:
            answer = await self._request("GET", f"/{'apis' if '/' in group_version else 'api'}/{group_version}")
        except NotFound:
            return frozenset()
        return frozenset(str(resource["name"]) for resource in answer.get("resources", ()))

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """Return the object as the API server has it now."""
        return await self._request("GET", kind.path(namespace, name))

    async def list(self, kind: Kind, namespace: str | None, **which: Unpack[Which]) -> Objects:
        """Return all objects (of all namespaces when `namespace` is None), asked for in pages."""
        return [item async for page in self.lists(kind, namespace, **which) for item in items_of(page)]

    async def lists(self, kind: Kind, namespace: str | None, **which: Unpack[Which]) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of `list` as they are, with the version from which a watch can go on in their metadata."""
        accept = _JSON
        if which.get("metadata_only"):
            accept = f"{accept};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        query = [("limit", str(which.get("limit", PAGE)))]
        if selector := which.get("label_selector"):
            query.append(("labelSelector", selector))
        if selector := which.get("field_selector"):
            query.append(("fieldSelector", selector))
        following: list[tuple[str, str]] = []
        while True:
            page = await self._request("GET", kind.path(namespace), query=query + following, accept=accept)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            following = [("continue", token)]

    @asynccontextmanager
    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        resource_version: str,
        label_selector: str = "",
        metadata_only: bool = False,
        seconds: int,
        silence: float,
    ) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
        """Yield, once the API server has accepted it, the events of a watch: their type and object.

        Args:
            kind: What to watch.
            namespace: Where; None means everywhere.
            resource_version: Of what is known.
            label_selector: Which objects.
            metadata_only: Ask for `PartialObjectMetadata`.
            seconds: After how long the API server ends it.
            silence: Seconds without an event or a bookmark after which it is given up as `Transient`.
        """
        path = kind.path(namespace)
        query = [("watch", "true"), ("allowWatchBookmarks", "true")]
        query += [("resourceVersion", resource_version), ("timeoutSeconds", str(seconds))]
        if label_selector:
            query.append(("labelSelector", label_selector))
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence)
        accept = _METADATA if metadata_only else _JSON
        async with self._stream(f"watch of {path}", path, query, accept, limits) as content:
            yield _events(content)

    async def create(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object and return its metadata. Raises `AlreadyExists` when there is one of its name."""
        return await self._request(
            "POST",
            kind.path(namespace),
            body=dict(manifest),
            query=[("fieldManager", FIELD_MANAGER)],
            accept=_METADATA,
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object that has this uid. Raises `Conflict` when the name belongs to another by now."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        await self._request("DELETE", kind.path(namespace, name), body=options)

    async def set_metadata(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        changes: Mapping[str, Mapping[str, str]],
        *,
        uid: str,
        has: Mapping[str, Mapping[str, str]],
    ) -> dict[str, Any]:
        """Set labels and annotations (JSON patch) of the object with this uid, as long as it `has` others; return it.

        Args:
            kind: What it is.
            namespace: Where it is.
            name: How it is called.
            changes: `labels` and `annotations` to set; the object must have some of either.
            uid: Which object of this name.
            has: Likewise, what it must have.

        Raises:
            Invalid: It is another one, or does not have them.
        """
        tests, sets = {"/metadata/uid": uid, **_pointers(has)}, _pointers(changes)
        return await self._request(
            "PATCH",
            kind.path(namespace, name),
            body=[
                *({"op": "test", "path": path, "value": value} for path, value in tests.items()),
                *({"op": "add", "path": path, "value": value} for path, value in sets.items()),
            ],
            query=[("fieldManager", FIELD_MANAGER)],
            content_type="application/json-patch+json",
        )

    async def resize(self, namespace: str, name: str, *, uid: str, requests: Requests) -> dict[str, Any]:
        """Change what containers of the pod with this uid request (subresource resize, KEP-1287); return the pod.

        Raises:
            NotFound: There is no such pod.
            Conflict: It is another one.
            Invalid: The change is not allowed, such as one of its QoS class.
        """
        amounts = {container: {"cpu": cpu, "memory": memory} for container, cpu, memory in requests}
        containers = [
            {"name": name, "resources": {"requests": {kind: each for kind, each in amount.items() if each}}}
            for name, amount in amounts.items()
        ]
        step = [each for each in containers if each["name"] == STEP_CONTAINER]
        sidecars = [each for each in containers if each["name"] != STEP_CONTAINER]
        return await self._request(
            "PATCH",
            PODS.path(namespace, name, "resize"),
            body={"metadata": {"uid": uid}, "spec": {"containers": step, "initContainers": sidecars}},
            query=[("fieldManager", FIELD_MANAGER)],
            # By the names of containers: their order may be another where webhooks have added some.
            content_type="application/strategic-merge-patch+json",
        )

    async def apply_status(self, kind: Kind, metadata: Mapping[str, str], status: Mapping[str, Any]) -> dict[str, Any]:
        """Make `status` ours as a whole (server-side apply, forced) and return the object's metadata.

        Args:
            kind: What it is.
            metadata: name, namespace and resourceVersion as they were read: a status that was decided upon an
                older state, by another replica for instance, or for another object that had this name, raises
                `Conflict`. (A uid would not do: for the status of custom resources it is not looked at.)
            status: The complete status: what is left out is removed.
        """
        return await self._request(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], "status"),
            body={
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "metadata": dict(metadata),
                "status": dict(status),
            },
            query=[("fieldManager", FIELD_MANAGER), ("force", "true")],
            accept=_METADATA,
            content_type="application/apply-patch+yaml",
        )

    async def log(self, namespace: str, pod: str, container: str) -> AsyncGenerator[bytes]:
        """Yield what a container that has started prints, from the beginning of its log until it ends."""
        path = PODS.path(namespace, pod, "log")
        query = [("container", container), ("follow", "true")]
        # A step may be silent for as long as a compiler takes.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=LOG_SECONDS)
        async with self._stream(f"GET {path}", path, query, "*/*", limits) as content:
            async for chunk in content.iter_any():
                yield chunk

    @asynccontextmanager
    async def _stream(
        self, what: str, path: str, query: Sequence[tuple[str, str]], accept: str, limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Yield what an answer without an end brings, once the API server has accepted the request within its time.

        Whoever reads it is told here as well that it breaks off: as `Transient`, with `what` it was.
        """
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._send("GET", path, query=query, accept=accept, limits=limits)
            async with answer as response:
                if response.status != 200:  # noqa: PLR2004 - HTTP
                    refusal = _status(await response.content.read(REFUSAL_BYTES))
                    raise error_of(response.status, refusal, response.headers.get("Retry-After", ""), what)
                yield response.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"{what} broke off: {str(error) or type(error).__name__}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        data: bytes | None = None,
        accept: str,
        content_type: str = _JSON,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request with the credentials of the client library, and none of what it does to requests.

        It walks through each body, and looks for a proxy and a netrc at each request: 0.7 ms of CPU, 0.3 without.
        """
        headers = {"Accept": accept, "Content-Type": content_type}
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        url = f"{self._server}{path}"
        return await self._session.request(
            method,
            URL(f"{url}?{urlencode(query)}" if query else url, encoded=True),
            data=data,
            headers=headers,
            timeout=limits,
            proxy=self._proxy,
            proxy_headers=self._configuration.proxy_headers,
            server_hostname=self._configuration.tls_server_name or None,
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        accept: str = _JSON,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with await self._send(
                method, path, query=query, data=data, accept=accept, content_type=content_type, limits=limits
            ) as response:
                payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise Transient(f"{method} {path}: no answer from the API server: {what}") from error
        answer = _status(payload)
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP
            raise error_of(response.status, answer, response.headers.get("Retry-After", ""), f"{method} {path}")
        if not answer:
            # A proxy on the way may answer 200 with a page of its own.
            raise Transient(f"{method} {path}: the answer is not a JSON object")
        return answer


def items_of(page: Mapping[str, Any]) -> Objects:
    """Return the objects of a page: null, when there are none, with metadata only."""
    return page["items"] or []


def _pointers(metadata: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the values of labels and annotations by JSON pointers to them."""
    return {pointer(part, key): value for part, pairs in metadata.items() for key, value in pairs.items()}


def _proxy(configuration: Configuration) -> str | None:
    """Return the proxy on the way to the API server: that of the kubeconfig, else that of the environment."""
    return str(configuration.proxy) if configuration.proxy else Proxies.read(os.environ).of(str(configuration.host))


def _status(payload: bytes) -> dict[str, Any]:
    """Return the object in an answer, empty where a proxy on the way has sent something else."""
    try:
        # Of any size, and not looked through: it is the API server's, and there is much of it.
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a watch, one a line. Lines may be longer than the reader's own limit for them."""
    rest = bytearray()
    async for chunk in content.iter_any():
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            rest += line
            if rest.strip():
                yield _event(bytes(rest))
            rest.clear()
        rest += tail


def _event(line: bytes) -> tuple[str, dict[str, Any]]:
    event = _status(line)
    if not isinstance(event.get("type"), str) or not isinstance(event.get("object"), dict):
        raise Transient("a watch returned something that is not an event")
    return event["type"], event["object"]


def error_of(status: int, answer: Mapping[str, Any], retry_after: str, what: str) -> KubeError:
    """Return the error for an answer outside 2xx.

    Args:
        status: HTTP status.
        answer: Its body, a `metav1.Status`; empty when something else than the API server answered.
        retry_after: Header Retry-After, in seconds, or empty.
        what: Method and path, for the message.
    """
    details = answer.get("details") or {}
    reason = answer.get("reason", "")
    message = answer.get("message") or f"{what}: HTTP {status}"
    causes = tuple(cause.get("reason", "") for cause in details.get("causes") or ())
    kinds: dict[int, type[KubeError]] = {403: Forbidden, 404: NotFound, 409: Conflict}
    # Quota answers 409 Conflict to a create when it lost a race with itself: the reason tells them apart.
    if reason == "AlreadyExists":
        return AlreadyExists(message, status=status, reason=reason, causes=causes)
    if status in kinds:
        return kinds[status](message, status=status, reason=reason, causes=causes)
    if status in {401, 408, 410, 429} or not 400 <= status < 500:  # noqa: PLR2004 - HTTP
        seconds = float(retry_after) if retry_after.isdigit() else float(details.get("retryAfterSeconds") or 0)
        return Transient(message, retry_after=seconds, status=status, reason=reason, causes=causes)
    return Invalid(message, status=status, reason=reason, causes=causes)
