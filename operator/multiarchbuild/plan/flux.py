"""What Flux says of a source: the artifact of an object of source.toolkit.fluxcd.io/v1.

Source: https://fluxcd.io/flux/components/source/gitrepositories/#artifact.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api import limits
from multiarchbuild.api.source import FluxKind, FluxSource
from multiarchbuild.api.status import SourceStatus

GROUP_VERSION = "source.toolkit.fluxcd.io/v1"
PLURALS = {
    FluxKind.GIT_REPOSITORY: "gitrepositories",
    FluxKind.OCI_REPOSITORY: "ocirepositories",
    FluxKind.BUCKET: "buckets",
    FluxKind.EXTERNAL_ARTIFACT: "externalartifacts",
}
"""How the API serves each kind."""
_COMMIT = re.compile(r"(?:(?P<ref>.*)@)?(?P<algorithm>sha1|sha256):(?P<commit>[0-9a-f]{40}|[0-9a-f]{64})")
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")
_URL = re.compile(r"https?://\S+")


@dataclass(frozen=True, slots=True)
class Artifact:
    """What Flux serves now, or why it serves nothing that can be built."""

    source: SourceStatus | None
    problem: str = ""
    """What is missing, where `source` is None, and what to do."""


def artifact_from(manifest: Mapping[str, Any], wanted: FluxSource) -> Artifact:
    """Return the artifact in the status of a Flux object; it is the last one that Flux has verified.

    Like kustomize-controller, this looks at the artifact alone: what was fetched stays good when a later fetch fails.
    """
    status = manifest.get("status", {})
    artifact = status.get("artifact") or {}
    url, revision, digest = (str(artifact.get(name, "")) for name in ("url", "revision", "digest"))
    if not artifact:
        said = [entry.get("message") for entry in status.get("conditions", ()) if entry.get("type") == "Ready"]
        return missing(wanted, ": ".join(["has no artifact yet", *filter(None, said)]))
    if not _URL.fullmatch(url) or len(url) > limits.URL:
        return missing(wanted, "has an artifact without a usable url")
    if not _DIGEST.fullmatch(digest):
        return missing(wanted, "has an artifact without a digest, which Flux writes from version 2.0 on")
    if not 0 < len(revision) <= limits.REVISION:
        return missing(wanted, "has an artifact without a usable revision")
    source = SourceStatus(url=url, revision=revision, digest=digest)
    if wanted.kind is not FluxKind.GIT_REPOSITORY:
        return Artifact(source)
    match = _COMMIT.fullmatch(revision)
    if match is None:
        return missing(wanted, f"has an artifact whose revision {revision!r} names no commit")
    commit = match["commit"]
    return Artifact(source.model_copy(update={"commit": commit, "ref": (match["ref"] or commit)[: limits.REF]}))


def missing(wanted: FluxSource, what: str) -> Artifact:
    """Return that there is nothing to build, because the object `what`."""
    return Artifact(None, f"{wanted.kind} {wanted.name!r} {what}")
