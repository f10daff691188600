"""Which cluster and user are meant."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from multiarchbuild.cli.errors import UsageError
from multiarchbuild.cli.kube import Cluster
from multiarchbuild.cli.kubeconfig import Access, Impersonation


class Server:
    """Takes any request and keeps what it said of its user."""

    def __init__(self) -> None:
        said = self.said = list[tuple[str, str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = ((name.lower(), value) for name, value in self.headers.items())
                said.extend((name, value) for name, value in sent if name.startswith(("impersonate", "authorization")))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"items": []}')

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def config(path: Path, server: Server, user: dict[str, Any]) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
    }
    file = path / "config"
    file.write_text(json.dumps(content), encoding="utf-8")
    return str(file)


def test_who_is_impersonated_by_the_kubeconfig_is_so(tmp_path: Path, server: Server) -> None:
    user = {
        "token": "t",
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"scopes": ["view"]},
    }
    Cluster.connect(Access(config(tmp_path, server, user))).builds()
    assert sorted(server.said) == sorted(
        [
            ("authorization", "Bearer t"),
            ("impersonate-user", "jane"),
            ("impersonate-uid", "7"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-scopes", "view"),
        ]
    )


def test_options_replace_whom_the_kubeconfig_impersonates(tmp_path: Path, server: Server) -> None:
    location = config(tmp_path, server, {"token": "t", "as": "jane", "as-groups": ["dev"]})
    Cluster.connect(Access(location, impersonated=Impersonation("joe"))).builds()
    assert [entry for entry in server.said if entry[0] != "authorization"] == [("impersonate-user", "joe")]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'the session has expired: log in again' >&2; exit 1", "the session has expired: log in again"),
        ("echo nonsense", "decode"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {}}\'', "token"),
    ],
)
def test_an_exec_plugin_that_fails_ends_the_command(tmp_path: Path, server: Server, script: str, said: str) -> None:
    program = tmp_path / "login"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "interactiveMode": "Never",
    }
    with pytest.raises(UsageError, match=said) as error:
        Cluster.connect(Access(config(tmp_path, server, {"exec": plugin}))).builds()
    assert str(program) in str(error.value)
    assert not server.said


def test_an_exec_plugin_logs_in(tmp_path: Path, server: Server) -> None:
    program = tmp_path / "login"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "x"}}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n", encoding="utf-8")
    program.chmod(0o755)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "interactiveMode": "Never",
    }
    Cluster.connect(Access(config(tmp_path, server, {"exec": plugin}))).builds()
    assert server.said == [("authorization", "Bearer x")]
