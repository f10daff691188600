"""The Kubernetes API as plain dicts, and what can go wrong with it.

KubeError
├── NotFound        404
├── AlreadyExists   409: a create found an object of that name
├── Conflict        409: the object has changed meanwhile, or is another of the same name
├── Invalid         400, 413, 422, …: the same request can never succeed
├── Forbidden       403: RBAC, quota, Pod Security or an admission webhook said no
└── Transient       401, 410, 429, 5xx and network errors: may succeed when repeated
"""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from multiarchbuild.api.resource import GROUP, KIND, PLURAL, VERSION

FIELD_MANAGER: Final = "multiarchbuild"
"""Owner of the fields of `status` (server-side apply)."""
REQUEST_SECONDS: Final = 30.0
"""Time for one request. Without it a dead connection would hold a worker for the client's five minutes."""
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
            f"no cluster to work with: {location} does not exist and this is no pod with a ServiceAccount; "
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


class Kube:
    """A client with one method for each thing the operator does. Every method raises `KubeError`."""

    def __init__(self, configuration: Configuration) -> None:
        """Use what `load_configuration` returned. To be called in the event loop that makes the requests."""
        self.api_client = ApiClient(configuration)
        self.api_client.user_agent = FIELD_MANAGER

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api_client.close()

    async def served(self, group_version: str) -> frozenset[str]:
        """Return the plurals of what the API server serves in a group and version, none where it has none."""
        try:
            answer = await self._request("GET", f"/apis/{group_version}")
        except NotFound:
            return frozenset()
        return frozenset(str(resource["name"]) for resource in answer.get("resources", ()))

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """Return the object as the API server has it now."""
        return await self._request("GET", kind.path(namespace, name))

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        label_selector: str = "",
        resource_version: str | None = None,
        metadata_only: bool = False,
        limit: int = PAGE,
    ) -> list[dict[str, Any]]:
        """Return all objects (of all namespaces when `namespace` is None), asked for in pages.

        Args:
            kind: What to list.
            namespace: Where.
            label_selector: Which ones.
            resource_version: "0" allows an answer from the server's cache, which may be a little old.
            metadata_only: Return `PartialObjectMetadata`, that is without spec, status and data.
            limit: Objects per page.
        """
        pages = self.pages(
            kind,
            namespace,
            label_selector=label_selector,
            resource_version=resource_version,
            metadata_only=metadata_only,
            limit=limit,
        )
        return [item async for page in pages for item in page]

    async def pages(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        label_selector: str = "",
        resource_version: str | None = None,
        metadata_only: bool = False,
        limit: int = PAGE,
    ) -> AsyncIterator[Objects]:
        """Yield what `list` returns page by page, for what is too much at once."""
        accept = "application/json"
        if metadata_only:
            accept = f"{accept};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        query = [("limit", str(limit))]
        if label_selector:
            query.append(("labelSelector", label_selector))
        if resource_version is not None:
            query.append(("resourceVersion", resource_version))
        following: list[tuple[str, str]] = []
        while True:
            page = await self._request("GET", kind.path(namespace), query=query + following, accept=accept)
            yield page["items"] or []  # null when there are none, with metadata only
            token = page["metadata"].get("continue")
            if not token:
                return
            # A continuation carries its resource version in itself and refuses another one.
            query = [pair for pair in query if pair[0] != "resourceVersion"]
            following = [("continue", token)]

    async def create(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object. Raises `AlreadyExists` when there is one of its name."""
        return await self._request(
            "POST", kind.path(namespace), body=dict(manifest), query=[("fieldManager", FIELD_MANAGER)]
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

    async def annotate(self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
        """Set these annotations and leave the others (JSON merge patch)."""
        return await self._request(
            "PATCH",
            kind.path(namespace, name),
            body={"metadata": {"annotations": dict(annotations)}},
            query=[("fieldManager", FIELD_MANAGER)],
            content_type="application/merge-patch+json",
        )

    async def apply_status(self, kind: Kind, metadata: Mapping[str, str], status: Mapping[str, Any]) -> dict[str, Any]:
        """Make `status` ours as a whole (server-side apply, forced) and return the object.

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
            content_type="application/apply-patch+yaml",
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        request = await self.api_client.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self.api_client.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            )
            payload: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise Transient(f"{method} {path}: no answer from the API server: {what}") from error
        try:
            answer = json.loads(payload)
        except ValueError:
            answer = {}
        if not isinstance(answer, dict):
            answer = {}
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP
            raise error_of(response.status, answer, response.headers.get("Retry-After", ""), f"{method} {path}")
        if not answer:
            # A proxy on the way may answer 200 with a page of its own.
            raise Transient(f"{method} {path}: the answer is no JSON object")
        return answer


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
