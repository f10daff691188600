"""What Flux's source-controller does for a build: its kinds, and the artifact in the status of an object.

The CRDs are those of its Go module. The controller itself does not build here, as one of its dependencies is not
served; its status is written as it writes it, and its tarballs are served by a pod.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hack.target import Target

from .artifacts import tar
from .crds import establish
from .git import GitServer
from .go_modules import crds, pinned
from .tenant import Tenant

MODULE = "github.com/fluxcd/source-controller"
VERSION = pinned("sigcheck", MODULE)
GROUP_VERSION = "source.toolkit.fluxcd.io/v1"
PLURALS = ("buckets", "externalartifacts", "gitrepositories", "ocirepositories")
CRDS = tuple(f"crd/{plural}.source.toolkit.fluxcd.io" for plural in PLURALS)


def install(target: Target) -> None:
    """Install the kinds that builds can take their source from."""
    files = [file for file in crds(MODULE, VERSION) if file.stem.rpartition("_")[2] in PLURALS]
    assert len(files) == len(PLURALS)
    establish(target, files)


def remove(target: Target) -> None:
    """Remove them, with all objects of theirs."""
    target.kubectl("delete", "--ignore-not-found", "--timeout=300s", *CRDS)


def external_artifact(name: str) -> dict[str, Any]:
    """Return an ExternalArtifact, which has no spec that matters."""
    return {"apiVersion": GROUP_VERSION, "kind": "ExternalArtifact", "metadata": {"name": name}, "spec": {}}


def store(
    tenant: Tenant, server: GitServer, plural: str, name: str, files: Mapping[str, str], commit: str | None = None
) -> str:
    """Make `files` the present artifact of an object, as source-controller does; return its revision."""
    content = tar(files, time=0)
    digest = hashlib.sha256(content).hexdigest()
    revision = f"main@sha1:{commit}" if commit else f"latest@sha256:{digest}"
    path = f"{plural}/{tenant.namespace}/{name}/{digest[:12]}.tar.gz"
    artifact = {
        "digest": f"sha256:{digest}",
        "lastUpdateTime": "2026-01-31T12:00:00Z",
        "path": path,
        "revision": revision,
        "size": len(content),
        "url": server.file(path, content),
    }
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Succeeded",
        "message": f"stored artifact for revision '{revision}'",
        "lastTransitionTime": "2026-01-31T12:00:00Z",
        "observedGeneration": 1,
    }
    patch = {"status": {"artifact": artifact, "conditions": [ready], "observedGeneration": 1}}
    if plural == "externalartifacts":
        patch["status"].pop("observedGeneration")
    tenant.kubectl("patch", plural, name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    return revision
