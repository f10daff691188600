"""The API server, spoken to synchronously as the user of a kubeconfig, in plain dicts."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Final, Self
from urllib.parse import quote

import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from urllib3.exceptions import HTTPError

from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.api.resource import GROUP, KIND, PLURAL, VERSION
from multiarchbuild.oci.http import cause

from .errors import CliError, NotFoundError, RefusedError, UnreachableError, UsageError
from .kubeconfig import IN_CLUSTER_NAMESPACE, Access, Impersonation

FIELD_MANAGER: Final = "kubectl-mab"
BUILDS: Final = f"apis/{GROUP}/{VERSION}"
CORE: Final = "api/v1"
_CONNECT, _READ = 10.0, 30.0
"""Seconds for one request where --request-timeout says nothing."""
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]


class Cluster:
    """A client with what the commands need. Every method raises a `CliError`."""

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        impersonated: Impersonation = Impersonation(),  # noqa: B008 - frozen
        request_timeout: float = 0.0,
    ) -> None:
        """Use what `connect` found."""
        # Long streams die silently behind load balancers otherwise.
        configuration.keep_alive = True
        self._api, self.namespace = ApiClient(configuration), namespace
        self._api.user_agent = FIELD_MANAGER
        self._impersonated = tuple(impersonated.headers())
        self._timeout = urllib3.Timeout(connect=request_timeout or _CONNECT, read=request_timeout or _READ)

    @classmethod
    def connect(cls, access: Access) -> Self:
        """Return the client for the cluster and the user that are meant.

        Raises:
            UsageError: there is no kubeconfig or no such context, it is malformed, or its exec plugin fails.
        """
        configuration = Configuration()
        if access.in_cluster:
            config.load_incluster_config(client_configuration=configuration)
            own = IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
            return cls(configuration, access.namespace or own, access.impersonated, access.request_timeout)
        found = access.read()
        context = found.named(access.context)
        with _plugin_errors() as said:
            try:
                config.load_kube_config(
                    access.location, context=context, client_configuration=configuration, persist_config=False
                )
            except config.ConfigException as error:
                raise UsageError(f"{access.location}: {error}") from error
        user = found.user(context)
        if "exec" in user and not (configuration.api_key or configuration.cert_file):
            # The client library goes on without credentials, and the API server would refuse "system:anonymous".
            command = user["exec"].get("command", "") if isinstance(user["exec"], dict) else ""
            raise UsageError(
                f"{command}, the exec plugin of context {context}, failed: {'; '.join(said) or 'no output'}"
            )
        # As with kubectl, options replace what the kubeconfig says.
        impersonated = access.impersonated if any(access.impersonated.headers()) else found.impersonated(context)
        namespace = access.namespace or found.contexts[context].get("namespace") or "default"
        return cls(configuration, namespace, impersonated, access.request_timeout)

    def within(self, namespace: str) -> Self:
        """Return a client for another namespace that shares the connections of this one."""
        other = copy(self)
        other.namespace = namespace
        return other

    def get(self, name: str) -> Object:
        """Return a build."""
        return self.request("GET", self._build(name))

    def builds_path(self, *, everywhere: bool) -> str:
        """Return the path of the builds of the namespace, or of all."""
        return f"{BUILDS}/{PLURAL}" if everywhere else self.path(BUILDS, PLURAL)

    def builds(self, *, everywhere: bool = False, selector: str = "") -> list[Object]:
        """Return the builds of the namespace, or of all, that have the labels of `selector`."""
        query = [("labelSelector", selector)] if selector else []
        return list(self.request("GET", self.builds_path(everywhere=everywhere), query=query)["items"])

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
        if wrong := {self.namespace, name} & {".", ".."}:
            # In a path they would mean another one, and escaping does not help.
            raise NotFoundError(f'"{wrong.pop()}" is not a name that anything in Kubernetes has')
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
        response = self.stream(method, path, query=query, body=body, content_type=content_type, timeout=self._timeout)
        try:
            return parse_object(response.data, "the answer", largest=None)
        except NonsenseError as error:
            raise UnreachableError(f"{method} /{path}: {error}") from error
        except HTTPError as error:
            raise UnreachableError(f"the API server does not answer: {cause(error)}") from error

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
                method,
                url,
                body=content,
                headers=self._headers(headers),
                preload_content=False,
                timeout=timeout,
                retries=2,
            )
            if response.status >= 400:  # noqa: PLR2004 - HTTP
                raise _refused(response.status, response.data)
        except HTTPError as error:
            raise UnreachableError(f"the API server does not answer: {cause(error)}") from error
        return response

    def _headers(self, headers: Mapping[str, str]) -> urllib3.HTTPHeaderDict:
        merged = urllib3.HTTPHeaderDict(headers)
        for name, value in self._impersonated:
            merged.add(name, value)
        return merged

    def _build(self, name: str) -> str:
        return self.path(BUILDS, PLURAL, name)

    def _patch(self, name: str, body: Object) -> Object:
        query = [("fieldManager", FIELD_MANAGER)]
        return self.request("PATCH", self._build(name), query=query, body=body, content_type=_MERGE)


@contextmanager
def _plugin_errors() -> Iterator[list[str]]:
    """Collect what the client library logs of an exec plugin that fails, which it does not raise."""
    said: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().strip())

    root, collector = logging.getLogger(), _Collector(logging.ERROR)
    root.addHandler(collector)
    try:
        yield said
    finally:
        root.removeHandler(collector)


def _refused(status: int, content: bytes) -> CliError:
    """Return the error for an answer outside 2xx, in the API server's own words (`metav1.Status`)."""
    try:
        message = str(parse_object(content, "the answer")["message"])
    except (ValueError, KeyError):
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
