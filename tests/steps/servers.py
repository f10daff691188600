"""The programs that the steps talk to, started for a test session on loopback: registries, buildkitd, git."""

import base64
import http.client
import json
import os
import selectors
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.pki import Pair
from tests.support.bodies import body_of


def wait(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    """Return once `condition` holds; the test fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def registry_config(port: int, storage: Path, **more: object) -> str:
    """Return a configuration of distribution's registry (JSON is YAML)."""
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    for name, value in more.items():
        config[name] = {**value, **(config.get(name) or {})} if isinstance(value, dict) else value  # type: ignore[dict-item]
    return json.dumps(config)


@dataclass
class Proxy:
    """An HTTP proxy that alone knows the addresses of some names: nobody reaches those in another way."""

    names: dict[str, str] = field(default_factory=dict)
    """`127.0.0.1:port` by host and port as they are asked for."""
    asked: list[str] = field(default_factory=list)
    """Method and host of each request, such as `CONNECT secure.test:443`."""
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler()) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield
            server.shutdown()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            rbufsize = 0

            def handle(self) -> None:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (byte := self.rfile.read(1)):
                        return
                    head += byte
                line, _, rest = head.partition(b"\r\n")
                method, target, version = line.decode().split()
                url = urlsplit(target if method != "CONNECT" else f"https://{target}")
                host = f"{url.hostname}:{url.port or {'http': 80, 'https': 443}[url.scheme]}"
                proxy.asked.append(f"{method} {host}")
                if host not in proxy.names:
                    self.wfile.write(b"HTTP/1.1 502 Unknown Host\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                address, port = proxy.names[host].split(":")
                with socket.create_connection((address, int(port))) as upstream:
                    if method == "CONNECT":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    else:
                        # One request for each connection: what follows the head goes through as it is.
                        path = url.path + (f"?{url.query}" if url.query else "")
                        kept = [
                            each
                            for each in rest.split(b"\r\n")
                            if each and not each.lower().startswith((b"connection:", b"proxy-connection:"))
                        ]
                        upstream.sendall(b"\r\n".join([f"{method} {path} {version}".encode(), *kept, b""]))
                        upstream.sendall(b"Connection: close\r\n\r\n")
                    relay(self.connection, upstream)

        return Handler


Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[str, str], Answer | None]
"""What is answered to a method and a path in the place of the registry; None where the registry answers."""


@dataclass
class FaultyRegistry:
    """A registry with faults before a real one."""

    upstream: str
    """Host and port of the real one."""
    fault: Fault = lambda _method, _path: None
    pause: float = 0.0
    """Seconds between the pieces in which blobs come."""
    certificate: Pair | None = None
    """What it speaks TLS with."""
    asked: list[str] = field(default_factory=list)
    host: str = ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        with ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            self.host = f"127.0.0.1:{server.server_port}"
            if self.certificate:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(self.certificate.cert, self.certificate.key)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield
            server.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                registry.asked.append(f"{self.command} {self.path}")
                body = body_of(self)
                status, headers, content = registry.fault(self.command, self.path) or self._forwarded(body)
                self.send_response(status)
                kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
                for name, value in {"Content-Length": str(len(content)), **kept}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                pieces = 8 if registry.pause and "/blobs/" in self.path else 1
                size = len(content) // pieces + 1
                for begin in range(0, len(content), size):
                    time.sleep(registry.pause)
                    self.wfile.write(content[begin : begin + size])

            def _forwarded(self, body: bytes) -> Answer:
                connection = http.client.HTTPConnection(registry.upstream)
                sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection.request(self.command, self.path, body=body or None, headers=sent)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                return answer.status, dict(answer.getheaders()), content

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        return Handler


_HOP = {"connection", "transfer-encoding", "date", "server", "expect"}
"""Headers of one connection alone."""


def relay(one: socket.socket, other: socket.socket) -> None:
    """Pass on what either side sends until one of them has closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                try:
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)
                except OSError:
                    return


@dataclass
class GitServer:
    """Repositories below `root`, by git's own http-backend; below /private/ with user and password, or the token."""

    root: Path
    port: int = 0
    user: str = "ci"
    password: str = "secret"
    token: str = 'tok"en\\='
    asked: list[str] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    """Every Authorization that was sent."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where a repository redirects to, by its name."""
    lfs: dict[str, bytes] = field(default_factory=dict)
    """Content of the files in LFS by their SHA-256."""

    def url(self, name: str) -> str:
        """Return the URL of a repository."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def commit(self, name: str, files: dict[str, str], *, branch: str = "main") -> str:
        """Add a commit with exactly these files to a repository, which is made when it is not there; return it."""
        bare, work = self.root / name, self.root / f".work-{name}"
        if not bare.exists():
            self._git(self.root, "init", "--quiet", "--bare", f"--initial-branch={branch}", str(bare))
            self._git(self.root, "init", "--quiet", f"--initial-branch={branch}", str(work))
        for path in work.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for relative, text in files.items():
            (work / relative).parent.mkdir(parents=True, exist_ok=True)
            (work / relative).write_text(text)
        self._git(work, "add", "--all")
        self._git(work, "commit", "--quiet", "--allow-empty", "--message=test")
        self._git(work, "push", "--quiet", "--force", str(bare), f"HEAD:refs/heads/{branch}")
        return self._git(work, "rev-parse", "HEAD").strip()

    def tag(self, name: str, tag: str) -> None:
        """Set an annotated tag on the last commit."""
        work = self.root / f".work-{name}"
        self._git(work, "tag", "--annotate", "--message=t", tag)
        self._git(work, "push", "--quiet", str(self.root / name), tag)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the class that answers requests, for http.server."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                path, _, query = self.path.partition("?")
                server.asked.append(path)
                server.shown.add(self.headers.get("Authorization", ""))
                name = path.removeprefix("/private").split("/")[1]
                if name in server.moved:
                    self.send_response(302)
                    self.send_header("Location", f"{server.moved[name]}{self.path.partition(name)[2]}")
                    self.end_headers()
                    return
                if path.startswith("/private/"):
                    path = path.removeprefix("/private")
                    pair = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
                    if self.headers.get("Authorization") not in {f"Basic {pair}", f"Bearer {server.token}"}:
                        self.send_response(401)
                        self.send_header("WWW-Authenticate", 'Basic realm="git"')
                        self.end_headers()
                        return
                if path.endswith("/info/lfs/objects/batch"):
                    status, headers, body = server._lfs_batch(self)
                elif path.startswith("/lfs-object/"):
                    status, headers, body = 200, [], server.lfs[path.removeprefix("/lfs-object/")]
                else:
                    status, headers, body = server._cgi(self, path, query)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815 - names that http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _lfs_batch(self, request: BaseHTTPRequestHandler) -> tuple[int, list[tuple[str, str]], bytes]:
        """Answer where files are, as https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md says."""
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        objects = [
            {**entry, "actions": {"download": {"href": self.url(f"lfs-object/{entry['oid']}")}}}
            if entry["oid"] in self.lfs
            else {**entry, "error": {"code": 404, "message": "Object does not exist"}}
            for entry in asked["objects"]
        ]
        kind = "application/vnd.git-lfs+json"
        return 200, [("Content-Type", kind)], json.dumps({"transfer": "basic", "objects": objects}).encode()

    def _cgi(self, request: BaseHTTPRequestHandler, path: str, query: str) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = request.headers
        body = request.rfile.read(int(headers.get("Content-Length") or 0))
        env = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        return status, [(name, value) for name, value in fields if name and name != "Status"], content

    def _git(self, folder: Path, *arguments: str) -> str:
        # No hooks: git-lfs makes one that would push what the server is not meant to have.
        identity = [
            "-c",
            "user.name=Ada Lovelace",
            "-c",
            "user.email=ada@example.com",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
