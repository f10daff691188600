"""One node, served over TLS as the API server serves it: merge patches, and JSON patches that test.

Source: RFC 7386, RFC 6902, and for members that are missing github.com/evanphx/json-patch, which the API server uses.
"""

import copy
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import pki

SECONDS = 60.0
"""How long a test waits for what never comes."""


class PatchError(Exception):
    """A patch does not apply."""


@dataclass
class NodeServer:
    """The node, each state that it has ever had, and who may write."""

    folder: Path
    """Certificates, and what every pod finds there: `ca.crt` and `token`."""
    node: dict[str, Any] = field(default_factory=lambda: {"labels": {"kubernetes.io/os": "linux"}, "annotations": {}})
    """Its metadata."""
    states: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    """HTTP status of the answer to every patch; 0 to apply it."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Notified after each request, applied or not."""

    @contextmanager
    def serving(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Serve until the block ends, where pods look for the API server."""
        authority = pki.Authority(self.folder, "ca")
        pair = authority.issue("server", common_name="api", hosts=("127.0.0.1",))
        (self.folder / "token").write_text("token", encoding="ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield
            server.shutdown()

    def until(self, what: str, check: Callable[[], bool]) -> None:
        """Return once `check` holds; it is asked again after each request."""
        with self.changed:
            assert self.changed.wait_for(check, SECONDS), f"not within {SECONDS:.0f} s: {what}; it is {self.node}"

    def patch(self, content_type: str, patch: Any) -> None:
        """Apply a patch as a whole, or not at all. Raises `PatchError`."""
        wanted = {"metadata": copy.deepcopy(self.node)}
        if content_type == "application/merge-patch+json":
            _merge(wanted, patch)
        elif content_type == "application/json-patch+json":
            for operation in patch:
                _apply(wanted, operation)
        else:
            raise PatchError(f"no patch: {content_type}")
        self.node = wanted["metadata"]
        self.states.append(copy.deepcopy(self.node))


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def _apply(document: dict[str, Any], operation: dict[str, Any]) -> None:
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    for part in parents:
        if part not in document:
            raise PatchError(f"missing: {operation['path']}")
        document = document[part]
    match operation["op"]:
        case "test":
            if document.get(last) != operation["value"]:
                raise PatchError(f"testing value {operation['path']} failed")
        case "add":
            document[last] = operation["value"]
        case "remove":
            if last not in document:
                raise PatchError(f"unable to remove nonexistent key: {last}")
            del document[last]
        case other:
            raise PatchError(f"unknown operation {other}")


def _handler(server: NodeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PATCH(self) -> None:
            patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.changed:
                status = server.refused
                answer: dict[str, Any] = {"message": "refused by the test"}
                if self.path != "/api/v1/nodes/node-1" or self.headers["Authorization"] != "Bearer token":
                    status, answer = 403, {"message": "another node, or nobody's token"}
                if not status:
                    try:
                        server.patch(self.headers["Content-Type"], patch)
                        status, answer = 200, {"metadata": server.node}
                    except PatchError as error:
                        status, answer = 422, {"message": str(error)}
                body = json.dumps(answer).encode()
                server.changed.notify_all()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
