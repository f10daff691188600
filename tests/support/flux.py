"""Flux's kustomize-controller at work in one namespace, and the artifacts it applies."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hack.target import Target

from .crds import establish
from .go_modules import crds, pinned
from .judges import program

_FLUX = "github.com/fluxcd"
_IMAGE_REFLECTOR = "v1.1.1"
_LAST_UPDATE = "2026-01-31T12:00:00Z"


def install_crds(target: Target) -> None:
    """Install the kinds of Flux that are used here, of the versions of its controllers that are compiled here."""
    controller = pinned("sigcheck", f"{_FLUX}/kustomize-controller")
    sources = pinned("sigcheck", f"{_FLUX}/source-controller")
    modules = {
        "kustomize-controller": controller,
        "source-controller": sources,
        "image-reflector-controller": _IMAGE_REFLECTOR,
    }
    establish(target, [file for name, version in modules.items() for file in crds(f"{_FLUX}/{name}", version)])


@dataclass(frozen=True)
class Flux:
    """The controller, and where its artifacts are served."""

    target: Target
    namespace: str
    folder: Path
    url: str

    def artifact(self, name: str, files: Mapping[str, str]) -> None:
        """Make `files` the present revision of an ExternalArtifact, as its producer does."""
        content = _tarball(files)
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / f"{digest}.tar.gz").write_bytes(content)
        manifest = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact", "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", stdin=json.dumps({**manifest, "spec": {}}))
        artifact = {
            "url": f"{self.url}/{digest}.tar.gz",
            "path": f"{digest}.tar.gz",
            "revision": f"sha256:{digest}",
            "digest": f"sha256:{digest}",
            "size": len(content),
            "lastUpdateTime": _LAST_UPDATE,
        }
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Succeeded",
            "message": "stored",
            "lastTransitionTime": _LAST_UPDATE,
        }
        patch = json.dumps({"status": {"artifact": artifact, "conditions": [ready]}})
        self.kubectl("patch", "externalartifact", name, "--subresource=status", "--type=merge", "-p", patch)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return self.target.kubectl("-n", self.namespace, *arguments, stdin=stdin)


@contextmanager
def running(target: Target, namespace: str, folder: Path) -> Iterator[Flux]:
    """Run the controller for one namespace, as a process of this machine with the rights of the kubeconfig."""
    install_crds(target)
    artifacts, scratch = folder / "artifacts", folder / "scratch"
    artifacts.mkdir()
    scratch.mkdir()
    handler = partial(_Handler, directory=str(artifacts))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, (folder / "controller.log").open("wb") as log:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        argv = [str(program("kustomize-controller")), "--watch-all-namespaces=false", "--enable-leader-election=false"]
        argv += ["--feature-gates=ExternalArtifact=true", "--metrics-addr=0", "--health-addr=127.0.0.1:0"]
        argv += ["--events-addr="]
        environment = {**os.environ, "KUBECONFIG": target.facts.kubeconfig, "RUNTIME_NAMESPACE": namespace}
        controller = subprocess.Popen(argv, env=environment | {"TMPDIR": str(scratch)}, stdout=log, stderr=log)
        try:
            yield Flux(target, namespace, artifacts, f"http://127.0.0.1:{server.server_port}")
        finally:
            controller.terminate()
            controller.wait(timeout=30)
            server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


def _tarball(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
