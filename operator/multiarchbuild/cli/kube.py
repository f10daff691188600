"""The API server, spoken to synchronously as the user of a kubeconfig, in plain dicts."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from urllib3.exceptions import HTTPError

from multiarchbuild.api.resource import GROUP, KIND, PLURAL, VERSION
from multiarchbuild.oci.http import cause

from .errors import CliError, NotFoundError, RefusedError, UnreachableError, UsageError

FIELD_MANAGER: Final = "kubectl-mab"
BUILDS: Final = f"apis/{GROUP}/{VERSION}"
CORE: Final = "api/v1"
_IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=30)
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Access:
    """Which cluster and namespace the user means, by the options of kubectl."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""

    @property
    def location(self) -> str:
        """Paths of kubeconfigs, as in KUBECONFIG."""
        return self.kubeconfig or os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")

    @property
    def exists(self) -> bool:
        """Whether there is a kubeconfig."""
        return any(Path(path).expanduser().is_file() for path in self.location.split(os.pathsep) if path)

    @property
    def in_cluster(self) -> bool:
        """Whether this is a pod without a kubeconfig, where kubectl takes the ServiceAccount."""
        return not self.kubeconfig and not self.exists and _IN_CLUSTER_NAMESPACE.exists()

    def contexts(self) -> tuple[dict[str, Object], str]:
        """Return all contexts by their name, and the name of the current one, empty where there is none.

        Of several files the first that names something counts, as with kubectl.

        Raises:
            UsageError: there is no kubeconfig, or it is malformed.
        """
        if not self.exists:
            raise UsageError(f"no cluster to work with: {self.location} does not exist; name one with --kubeconfig")
        found: dict[str, Object] = {}
        current = ""
        for path in filter(None, self.location.split(os.pathsep)):
            file = Path(path).expanduser()
            if not file.is_file():
                continue
            try:
                document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                current = current or str(document.get("current-context") or "")
                for entry in document.get("contexts") or ():
                    found.setdefault(str(entry["name"]), dict(entry["context"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
                raise UsageError(f"{path} is not a kubeconfig: {error}") from error
        return found, current


class Cluster:
    """A client with what the commands need. Every method raises a `CliError`."""

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        """Use what `connect` found."""
        # Long streams die silently behind load balancers otherwise.
        configuration.keep_alive = True
        self._api, self.namespace = ApiClient(configuration), namespace
        self._api.user_agent = FIELD_MANAGER

    @classmethod
    def connect(cls, access: Access) -> Self:
        """Return the client for the cluster that the user means.

        Raises:
            UsageError: there is no kubeconfig or no such context, or it is malformed.
        """
        configuration = Configuration()
        if access.in_cluster:
            config.load_incluster_config(client_configuration=configuration)
            own = _IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
            return cls(configuration, access.namespace or own)
        contexts, current = access.contexts()
        context = access.context or current
        if context not in contexts:
            what = f"there is no context {context!r}" if context else "no context is the current one"
            raise UsageError(f"{what}: name one with --context; {access.location} has {', '.join(contexts) or 'none'}")
        try:
            config.load_kube_config(
                access.location, context=context, client_configuration=configuration, persist_config=False
            )
        except config.ConfigException as error:
            raise UsageError(f"{access.location}: {error}") from error
        return cls(configuration, access.namespace or contexts[context].get("namespace") or "default")

    def get(self, name: str) -> Object:
        """Return a build."""
        return self.request("GET", self._build(name))

    def builds(self, *, everywhere: bool = False) -> list[Object]:
        """Return the builds of the namespace, or of all."""
        path = f"{BUILDS}/{PLURAL}" if everywhere else self.path(BUILDS, PLURAL)
        return list(self.request("GET", path)["items"])

    def annotate(self, name: str, annotations: Mapping[str, str]) -> Object:
        """Set annotations of a build."""
        return self._patch(name, {"metadata": {"annotations": dict(annotations)}})

    def patch_spec(self, name: str, spec: Mapping[str, Any]) -> Object:
        """Merge `spec` into that of a build."""
        return self._patch(name, {"spec": dict(spec)})

    def apply(self, manifest: Object, *, force: bool = False) -> Object:
        """Create a build or make the fields of `manifest` ours (server-side apply)."""
        query = [("fieldManager", FIELD_MANAGER), ("force", str(force).lower())]
        name = manifest["metadata"]["name"]
        return self.request("PATCH", self._build(name), query=query, body=manifest, content_type=_APPLY)

    def pods(self, selector: str) -> list[Object]:
        """Return the pods with these labels."""
        return list(self.request("GET", self.path(CORE, "pods"), query=[("labelSelector", selector)])["items"])

    def path(self, root: str, plural: str, name: str = "") -> str:
        """Return the path of a collection or an object in the namespace."""
        return "/".join(
            filter(None, (root, "namespaces", quote(self.namespace, safe=""), plural, quote(name, safe="")))
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Return the JSON object that the API server answers."""
        response = self.stream(method, path, query=query, body=body, content_type=content_type, timeout=_TIMEOUT)
        try:
            answer = json.loads(response.data)
        except ValueError as error:
            raise UnreachableError(f"{method} /{path}: the answer is no JSON object") from error
        except HTTPError as error:
            raise UnreachableError(f"the API server does not answer: {cause(error)}") from error
        return dict(answer)

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Object | None = None,
        content_type: str = "application/json",
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        """Return the response, whose content has not been read yet."""
        _, url, headers, *_ = self._api.param_serialize(
            method,
            f"/{path}",
            query_params=list(query),
            header_params={"Accept": "application/json, */*", "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        content = None if body is None else json.dumps(body).encode()
        pool: urllib3.PoolManager = self._api.rest_client.pool_manager
        try:
            response = pool.request(
                method, url, body=content, headers=headers, preload_content=False, timeout=timeout, retries=2
            )
            if response.status >= 400:  # noqa: PLR2004 - HTTP
                raise _refused(response.status, response.data)
        except HTTPError as error:
            raise UnreachableError(f"the API server does not answer: {cause(error)}") from error
        return response

    def _build(self, name: str) -> str:
        return self.path(BUILDS, PLURAL, name)

    def _patch(self, name: str, body: Object) -> Object:
        query = [("fieldManager", FIELD_MANAGER)]
        return self.request("PATCH", self._build(name), query=query, body=body, content_type=_MERGE)


def _refused(status: int, content: bytes) -> CliError:
    """Return the error for an answer outside 2xx, in the API server's own words (`metav1.Status`)."""
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace").strip()[:500]
    if status == 404 and message.startswith(("404 page", "the server could not find")):  # noqa: PLR2004
        return RefusedError(f"the cluster has no {KIND}: is the operator installed? ({message})")
    if status == 404:  # noqa: PLR2004
        return NotFoundError(message)
    if status == 401:  # noqa: PLR2004
        return RefusedError(f"the API server does not accept these credentials: {message}")
    if status == 409 and "conflict" in message:  # noqa: PLR2004
        return RefusedError(f"{message}\nanother owner set these fields: change them there, or use --force-conflicts")
    if status in {429, 500, 502, 503, 504}:
        return UnreachableError(f"the API server answered {status}: {message}")
    return RefusedError(message)
