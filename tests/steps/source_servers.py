"""What archives, artifacts and ssh repositories come from, started for a test on loopback."""

import hashlib
import http.client
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.steps.servers import free_port, listens, running, wait

CONFIG = "application/vnd.cncf.flux.config.v1+json"
CONTENT = "application/vnd.cncf.flux.content.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(content: bytes) -> str:
    """Return the digest of `content` as manifests write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, str], *, mode: str = "w:gz", time: int = 1_700_000_000, links: bool = False) -> bytes:
    """Return an archive with `files`; with `links` their content is where a symbolic link leads."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = time
            if links:
                member.type, member.linkname = tarfile.SYMTYPE, text
                archive.addfile(member)
            else:
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


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
    def serving(self) -> Iterator["FileServer"]:
        """Serve until the block ends."""
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
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class Registry:
    """A registry that artifacts are pushed to."""

    host: str
    authorization: str = ""
    ca_file: str = ""

    def push(self, repository: str, tag: str, *layers: tuple[str, bytes]) -> str:
        """Push an artifact with these layers (media type, content), as `flux push artifact` does; return its digest."""
        config = b"{}"
        for blob in (config, *(content for _, content in layers)):
            location = self._request("POST", f"/v2/{repository}/blobs/uploads/").getheader("Location", "")
            path = location[location.index("/v2/") :]
            self._request("PUT", f"{path}{'&' if '?' in path else '?'}digest={sha256(blob)}", blob)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": sha256(config)},
            "layers": [{"mediaType": kind, "size": len(blob), "digest": sha256(blob)} for kind, blob in layers],
            "annotations": {"org.opencontainers.image.revision": "main@sha1:1234"},
        }
        return self.put(repository, tag, document)

    def put(self, repository: str, tag: str, document: Mapping[str, object]) -> str:
        """Store a manifest and return its digest."""
        raw = json.dumps(document).encode()
        self._request("PUT", f"/v2/{repository}/manifests/{tag}", raw, str(document["mediaType"]))
        return sha256(raw)

    def _request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> http.client.HTTPResponse:
        connection = (
            http.client.HTTPSConnection(self.host, context=ssl.create_default_context(cafile=self.ca_file))
            if self.ca_file
            else http.client.HTTPConnection(self.host)
        )
        headers = {"Content-Type": kind, **({"Authorization": self.authorization} if self.authorization else {})}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        said = response.read()
        assert response.status in (201, 202), (method, path, response.status, said)
        return response


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
