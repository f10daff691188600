"""A git server over http, run inside a pod: git's own `http-backend` with basic authentication in front of it.

/open/<repository> is for everybody; /private/<repository> demands the user `reader`, or any user with a token;
/private-bearer/<repository> the token as a bearer token. Files below /files and /private-files are served likewise.
Source: https://git-scm.com/docs/git-http-backend and RFC 3875 (CGI).
"""

import base64
import gzip
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.bodies import body_of

ROOT = Path("/srv/git")
PASSWORD = os.environ.get("READER_PASSWORD", "")
TOKEN = os.environ.get("READER_TOKEN", "")
NEXT = "next"
"""File of a repository with `<ref> <commit>`: after the next fetch the ref moves there."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        self.serve(body_of(self))

    def serve(self, body: bytes) -> None:
        url = urlsplit(self.path)
        access, _, path = url.path.lstrip("/").partition("/")
        kind = "Bearer" if access == "private-bearer" else "Basic"
        if access.startswith("private") and not self.authenticated(kind):
            self.answer(401, {"WWW-Authenticate": f'{kind} realm="git"'}, b"who are you?")
            return
        if access.endswith("files"):
            file = ROOT / "files" / path
            self.answer(200 if file.is_file() else 404, {}, file.read_bytes() if file.is_file() else b"")
            return
        environ = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(ROOT),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        out = subprocess.run(["git", "http-backend"], env=environ, input=body, capture_output=True, check=False).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if b"command=fetch" in plain:
            self.move(ROOT / path.partition("/")[0])
        self.answer(int(headers.pop("Status", "200").split()[0]), headers, content)

    def move(self, repository: Path) -> None:
        if (repository / NEXT).exists():
            ref, commit = (repository / NEXT).read_text().split()
            subprocess.run(["git", "-C", repository, "update-ref", ref, commit], check=True)
            (repository / NEXT).unlink()

    def authenticated(self, wanted: str) -> bool:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if wanted == "Bearer":
            return bool(TOKEN) and (kind, value) == (wanted, TOKEN)
        user, _, password = base64.b64decode(value).decode().partition(":") if kind == "Basic" else ("", "", "")
        return (user, password) == ("reader", PASSWORD) or bool(TOKEN and password == TOKEN)

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    sys.stderr.write("serving\n")
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()
