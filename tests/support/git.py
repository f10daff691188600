"""A git server in the cluster, and repositories made in it commit by commit."""

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.target import Target

NAMESPACE = "mab-test-git"
PASSWORD = "correct horse"
TOKEN = "t0ken-of-a-robot"
_MODULES = ("git_server.py", "bodies.py")
"""What the pod runs, of this package."""
_TIME = 1_700_000_000


@dataclass
class Repository:
    """A bare repository on the server."""

    server: "GitServer"
    name: str
    _branches: set[str] = field(default_factory=set)
    _count: int = 0

    @property
    def url(self) -> str:
        """Where everybody may read it."""
        return f"http://git.{NAMESPACE}.svc/open/{self.name}"

    @property
    def private_url(self) -> str:
        """Where only who is authenticated may read it."""
        return f"http://git.{NAMESPACE}.svc/private/{self.name}"

    @property
    def bearer_url(self) -> str:
        """Where only who has a bearer token may read it."""
        return f"http://git.{NAMESPACE}.svc/private-bearer/{self.name}"

    def commit(
        self,
        files: Mapping[str, str],
        branch: str = "main",
        *,
        visible: bool = True,
        submodules: Mapping[str, str] | None = None,
    ) -> str:
        """Commit `files` and `submodules` (commit by path), all that the tree then has, to `branch`; return the commit.

        With `visible` False the commit is on the server, but `branch` moves there only after the next fetch.
        """
        ref = f"refs/heads/{branch}" if visible else "refs/hidden/next"
        self._count += 1
        # Each commit has a time of its own, and so a digest of its own.
        stamp = f"Tester <tester@example.com> {_TIME + self._count} +0000"
        stream = f"commit {ref}\nmark :1\ncommitter {stamp}\n{_data(f'commit {self._count}')}"
        stream += f"from refs/heads/{branch}^0\n" if branch in self._branches else ""
        stream += "deleteall\n" + "".join(f"M 100644 inline {path}\n{_data(text)}" for path, text in files.items())
        stream += "".join(f"M 160000 {commit} {path}\n" for path, commit in (submodules or {}).items())
        stream += "\nget-mark :1\n"
        commit = self._git("fast-import", "--quiet", "--force", stdin=stream).strip()
        self._branches.add(branch)
        if not visible:
            self.server.run("sh", "-c", f"echo refs/heads/{branch} {commit} > /srv/git/{self.name}/next")
        return commit

    def tag(self, name: str, commit: str) -> None:
        """Make an annotated tag."""
        identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
        self._git(*identity, "tag", "--annotate", "--message", name, name, commit)

    def _git(self, *arguments: str, stdin: str = "") -> str:
        return self.server.run("git", "-C", f"/srv/git/{self.name}", *arguments, stdin=stdin)


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


@dataclass(frozen=True)
class GitServer:
    """The pod that serves."""

    target: Target

    def repository(self, name: str) -> Repository:
        """Make an empty repository whose default branch is main."""
        self.run("git", "init", "--quiet", "--bare", "--initial-branch=main", f"/srv/git/{name}")
        for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            self.run("git", "-C", f"/srv/git/{name}", "config", setting, "true")
        return Repository(self, name)

    def upload(self, folder: Path, name: str) -> str:
        """Serve the bare repositories of a local folder, beside each other in the folder `name` of the server.

        Returns the URL that they are below.
        """
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, arcname=".")
        script = f"mkdir -p /srv/git/{name} && base64 -d | tar -xz --no-same-owner -C /srv/git/{name}"
        self.run("sh", "-c", script, stdin=base64.b64encode(packed.getvalue()).decode())
        return f"http://git.{NAMESPACE}.svc/open/{name}"

    def file(self, name: str, content: bytes, *, private: bool = False) -> str:
        """Serve a file and return its URL."""
        path = f"/srv/git/files/{name}"
        script = f"mkdir -p {path.rpartition('/')[0]} && base64 -d > {path}"
        self.run("sh", "-c", script, stdin=base64.b64encode(content).decode())
        return f"http://git.{NAMESPACE}.svc/{'private-' if private else ''}files/{name}"

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program in the pod and return what it printed."""
        return self.target.kubectl("exec", "-i", "-n", NAMESPACE, "git", "--", *argv, stdin=stdin)


def start(target: Target, image: str) -> GitServer:
    """Start the server, or find it running; `image` has git and python."""
    manifest = {"apiVersion": "v1", "kind": "List", "items": _manifests(image)}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace()))
    target.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(manifest))
    target.kubectl("wait", "pod/git", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=300s")
    return GitServer(target)


def stop(target: Target) -> None:
    """Remove the server, so that `start` makes a new one."""
    target.kubectl("delete", "pod", "git", "-n", NAMESPACE, "--ignore-not-found", "--force", "--grace-period=0")


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def _manifests(image: str) -> list[dict[str, Any]]:
    meta = {"name": "git", "namespace": NAMESPACE, "labels": {"app": "git"}}
    program = {name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _MODULES}
    modules = {"name": "git", "items": [{"key": name, "path": f"tests/support/{name}"} for name in _MODULES]}
    container = {
        "name": "git",
        "image": image,
        "command": ["python3", "-m", "tests.support.git_server"],
        "workingDir": "/program",
        "env": [{"name": "READER_PASSWORD", "value": PASSWORD}, {"name": "READER_TOKEN", "value": TOKEN}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "program", "mountPath": "/program"},
            {"name": "repositories", "mountPath": "/srv/git"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        # Tests drain and stop nodes for arm64.
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "containers": [container],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "volumes": [{"name": "program", "configMap": modules}, {"name": "repositories", "emptyDir": {}}],
    }
    ports = [{"port": 80, "targetPort": 8080}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": program},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "git"}, "ports": ports}},
    ]
