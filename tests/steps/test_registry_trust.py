"""The CA of one registry is trusted for that registry and its token server, and for no other."""

import http.client
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from tests.cluster import build, pki
from tests.cluster.layout import cache_directory
from tests.steps.conftest import PASSWORD, USER, Pod, Services, docker_config, start_buildkitd

BUILD = ("build", "--platform=linux/amd64")


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], authority: pki.Authority, name: str) -> Iterator[str]:
    """Serve with a certificate of `authority` and yield host and port."""
    pair = authority.issue(name, common_name="localhost", hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


def token_server(asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """Return a token server that gives everybody who logs in a token, and notes how they did."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            content = b'{"token": "t"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def registry_before(upstream: str, realm: str) -> type[BaseHTTPRequestHandler]:
    """Return a registry that has what `upstream` has, for those with a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != "Bearer t":
                self.send_response(401)
                self.send_header("WWW-Authenticate", f'Bearer realm="https://{realm}/token",service="s"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(upstream)
            connection.request(self.command, self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@dataclass(frozen=True)
class Two:
    """Registries with CAs of their own."""

    services: Services
    good: str
    """Its token server has a certificate of its own CA."""
    bad: str
    """That of this one has a certificate of the other's CA."""
    asked: list[str]
    """Who logged in to the token server of `bad`."""


@pytest.fixture(scope="module")
def two(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("trust")
    for name in ("a", "b", "buildkitd"):
        (folder / name).mkdir()
    a, b = (pki.Authority(folder / name, "ca") for name in ("a", "b"))
    asked: list[str] = []
    with ExitStack() as stack:
        own = stack.enter_context(serving(token_server([]), a, "own-tokens"))
        others = stack.enter_context(serving(token_server(asked), a, "others-tokens"))
        good = stack.enter_context(serving(registry_before(services.registry, own), a, "good"))
        bad = stack.enter_context(serving(registry_before(services.registry, others), b, "bad"))
        pairs = ((good, a), (bad, b))
        bundles = [{"host": host, "caBundle": Path(ca.pair.cert).read_text()} for host, ca in pairs]
        found = replace(services, others=tuple(bundles), socket=folder / "buildkitd" / "buildkitd.sock")
        program = build.ensure(cache_directory(os.environ)).programs["buildkitd"]
        start_buildkitd(stack, str(program), folder / "buildkitd", found)
        yield Two(found, good, bad, asked)


def pod(two: Two, folder: Path, dockerfile: str, secret: str) -> Pod:
    spec: dict[str, Any] = {
        "platforms": ["linux/amd64"],
        "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
        "output": {"image": f"{two.services.registry}/team/trust", "secretRefs": [{"name": "registry"}]},
    }
    return Pod(folder, two.services, "team/trust", spec, {"docker/0": docker_config(secret, USER, PASSWORD)})


def test_a_registry_and_its_token_server_are_reached_by_their_own_ca(two: Two, short_path: Path) -> None:
    assert pod(two, short_path, f"FROM {two.good}/library/busybox:1.36\n", two.good).built().digest


def test_a_token_server_with_a_certificate_of_another_registrys_ca_gets_no_credentials(
    two: Two, short_path: Path
) -> None:
    dockerfile = (
        f"FROM {two.good}/library/busybox:1.36 AS good\nFROM {two.bad}/library/busybox:1.36\n"
        "COPY --from=good /bin/busybox /busybox\n"
    )
    failure = pod(two, short_path, dockerfile, two.bad).failed(*BUILD)
    assert failure.reason is Reason.CERTIFICATE_UNTRUSTED, failure.message
    assert two.asked == []


def test_each_registry_refuses_the_others_certificate(two: Two, short_path: Path) -> None:
    swapped = replace(
        two.services,
        others=tuple(
            {**entry, "caBundle": other["caBundle"]}
            for entry, other in zip(two.services.others, reversed(two.services.others), strict=True)
        ),
    )
    for host in (two.good, two.bad):
        folder = short_path / host
        folder.mkdir()
        own = pod(replace(two, services=swapped), folder, "FROM scratch\n", host)
        own.spec["output"]["image"] = f"{host}/team/trust"
        failure = own.failed(*BUILD)
        assert failure.reason is Reason.CERTIFICATE_UNTRUSTED, failure.message
