"""The programs that the steps talk to, started for a test session on loopback: registries, buildkitd, git."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(condition: Callable[[], bool], *, seconds: float = 20) -> None:
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
