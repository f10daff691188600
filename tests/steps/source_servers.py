"""What archives and ssh repositories come from, started for a test on loopback."""

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.steps.servers import listens, running, wait
from tests.support.ports import free_port


@dataclass
class FileServer:
    """Serves files; what is below /private/ to who sends `authorization`; `moved` redirects."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    authorization: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, Authorization) of each request."""
    failures: int = 0
    """How many requests are answered with 503 first."""
    port: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return the URL of a file."""
        return f"http://{host}:{self.port}/{path}"

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator["FileServer"]:
        """Serve until the block ends, by https with `tls`."""
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, sent = self.path.lstrip("/"), self.headers.get("Authorization", "")
                files.asked.append((path, sent))
                if files.failures:
                    files.failures -= 1
                    self.answer(503)
                elif path.startswith("private/") and sent != files.authorization:
                    self.answer(401)
                elif path in files.moved:
                    self.answer(302, {"Location": files.moved[path]})
                elif path in files.files:
                    self.answer(200, {"Content-Type": "application/gzip"}, files.files[path])
                else:
                    self.answer(404)

            def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class SshServer:
    """OpenSSH's server, which lets `key` in to the repositories of this machine."""

    port: int
    key: str
    """Private key that may log in."""
    known_hosts: str

    def url(self, repository: Path) -> str:
        """Return the URL of a repository."""
        return f"ssh://root@127.0.0.1:{self.port}{repository}"


def make_key(path: Path, passphrase: str = "") -> str:
    """Make a key pair and return the private key."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_text()


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Serve ssh until the block ends."""
    folder.mkdir()
    make_key(folder / "host")
    key = make_key(folder / "user")
    port = free_port()
    settings = {
        "Port": str(port),
        "ListenAddress": "127.0.0.1",
        "HostKey": str(folder / "host"),
        "AuthorizedKeysFile": str(folder / "user.pub"),
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    os.chmod("/run/sshd", 0o755)  # noqa: PTH101 - what sshd demands of it
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    with running("/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config"), log=folder / "log"):
        wait(lambda: listens(port))
        yield SshServer(port, key, f"[127.0.0.1]:{port} {host_key}\n")
