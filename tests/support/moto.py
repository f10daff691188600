"""moto, an implementation of AWS's APIs, in an environment of its own: its packages and ours exclude each other."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.cluster.build.cache import content_key, locked
from tests.cluster.layout import cache_directory
from tests.support.ports import free_port

LOCK = Path(__file__).parents[1] / "steps" / "moto-requirements.lock"
ACCOUNT = "123456789012"
PASSWORD = f"{ACCOUNT}-auth-token"
"""Of the user AWS in what ECR hands out (moto/ecr/responses.py)."""


def ensure() -> Path:
    """Return moto's program, made in the cache where it is missing."""
    cache = cache_directory(os.environ)
    folder = cache / "moto" / content_key([LOCK.read_bytes(), sys.version])
    program, done = folder / "bin" / "moto_server", folder / "done"
    if not done.exists():
        with locked(cache / "moto" / "lock", lambda line: print(line, file=sys.stderr)):
            if not done.exists():
                # Not moved into place: the programs of an environment know where they are.
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
                install = ["-m", "pip", "install", "--quiet", "--no-compile", "--require-hashes", "-r", str(LOCK)]
                subprocess.run([str(folder / "bin" / "python"), *install], check=True)
                done.touch()
    return program


@dataclass(frozen=True)
class Moto:
    """A server with IAM, STS and ECR."""

    url: str

    def role(self, name: str, *allowed: str) -> str:
        """Create a role with these actions allowed, before anything is authorised, and return its ARN."""
        statements = [{"Effect": "Allow", "Action": list(allowed), "Resource": "*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.authorise_after(2)
        self._iam(Action="CreateRole", RoleName=name, AssumeRolePolicyDocument="{}")
        self._iam(Action="PutRolePolicy", RoleName=name, PolicyName="own", PolicyDocument=policy)
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def authorise_after(self, requests: int) -> None:
        """Verify signatures and rights of all requests but the next ones.

        moto wants a signature of AssumeRoleWithWebIdentity too, which has none: that is the one to leave out.
        """
        self._post("/moto-api/reset-auth", str(requests).encode(), {"Content-Type": "text/plain"})

    def _iam(self, **fields: str) -> None:
        credential = "Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/iam/aws4_request"
        headers = {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"}
        self._post("/", urlencode({"Version": "2010-05-08", **fields}).encode(), headers)

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}{path}", body, headers, method="POST")
        ) as answer:
            answer.read()


@contextmanager
def serving(log: Path) -> Iterator[Moto]:
    """Serve until the block ends."""
    program, port = ensure(), free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        log.open("wb") as output,
        subprocess.Popen([str(program), "-p", str(port)], stdout=output, stderr=output) as process,
    ):
        try:
            until = time.monotonic() + 120
            while True:
                with suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"{url}/moto-api/").close()
                    break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, "moto does not come up"
                time.sleep(0.1)
            yield Moto(url)
        finally:
            process.terminate()


if __name__ == "__main__":
    ensure()
