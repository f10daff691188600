"""The few requests to the API server that are needed here."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import urllib3

from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.api.pointers import pointer

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NOT_APPLICABLE: Final = 422
"""Status of a JSON patch with a test that does not hold."""

Values = Mapping[str, str | None]
"""Labels or annotations of a node; None removes one."""


class ApiError(Exception):
    """A request that was not fulfilled; the message is the API server's."""

    def __init__(self, message: str, status: int = 0) -> None:
        """Keep the HTTP status; 0 where there was no answer."""
        super().__init__(message)
        self.status = status


class Api:
    """The API server, as the ServiceAccount of the pod sees it."""

    def __init__(self, account: Path = _ACCOUNT) -> None:
        """Find it as every pod does; `account` is where its token and CA are."""
        self._account = account
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self._url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._pool = urllib3.PoolManager(ca_certs=str(account / "ca.crt"), timeout=10, retries=2)

    def label_node(self, name: str, labels: Values, annotations: Values | None = None) -> None:
        """Set labels and annotations of a node. Raises `ApiError`."""
        patch = {"metadata": {"labels": dict(labels), "annotations": dict(annotations or {})}}
        self._request("PATCH", f"/api/v1/nodes/{name}", patch, "application/merge-patch+json")

    def label_node_where(self, name: str, are: Values, labels: Values, annotations: Values) -> bool:
        """Do the same where annotations of the node are as in `are`, and return whether they were. Raises `ApiError`.

        The API server compares and writes at once: nothing is written in between. Source: RFC 6902.
        """
        patch = [
            # A member that is missing equals null: https://github.com/evanphx/json-patch, which the API server uses.
            *({"op": "test", "path": pointer("annotations", key), "value": value} for key, value in are.items()),
            *_changes("labels", labels),
            *_changes("annotations", annotations),
        ]
        try:
            self._request("PATCH", f"/api/v1/nodes/{name}", patch, "application/json-patch+json")
        except ApiError as error:
            if error.status == _NOT_APPLICABLE:
                return False
            raise
        return True

    def delete_daemonset(self, namespace: str, name: str, seconds: float) -> bool:
        """Delete a DaemonSet, and return whether it is gone with all its pods within `seconds`. Raises `ApiError`."""
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
        if self._request("DELETE", path, {"propagationPolicy": "Foreground"}) is None:
            return True
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._request("GET", path) is None:
                return True
            time.sleep(0.5)
        return False

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any] | None:
        """Return the answer, None where there is no such object."""
        # Read each time: kubelet renews it.
        token = (self._account / "token").read_text(encoding="ascii")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        content = json.dumps(body) if body is not None else None
        try:
            answer = self._pool.request(method, self._url + path, body=content, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{method} {path}: no answer from the API server: {error}") from error
        if answer.status == 404:  # noqa: PLR2004 - HTTP
            return None
        try:
            result = parse_object(answer.data, "the answer", largest=None)
        except NonsenseError:
            result = {}
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP
            raise ApiError(str(result.get("message") or f"{method} {path}: HTTP {answer.status}"), answer.status)
        return result


def _changes(field: str, values: Values) -> Iterator[dict[str, Any]]:
    for key, value in values.items():
        path = pointer(field, key)
        yield {"op": "add", "path": path, "value": value or ""}
        if value is None:
            # It is there now, in any case: to remove what is missing would be an error.
            yield {"op": "remove", "path": path}
