"""Builds as they were seen last, without what is large in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.stored import read_build
from multiarchbuild.plan.identity import fingerprint, identify

from .logs import logger

_LOG = logger(__name__)

KEPT_BYTES: Final = 1024
"""Inline files of which no more than this are kept: thousands of builds may have 128 KiB each."""


@dataclass(frozen=True, slots=True)
class SeenBuild:
    """A MultiArchBuild at some version."""

    namespace: str
    name: str
    uid: str
    version: int
    """Its resourceVersion."""
    deleting: bool
    build: MultiArchBuild | None
    """None where it can't be read."""
    error: ValidationError | None = None
    """Why it can't."""
    complete: bool = True
    """Whether the contents of inline files are there; their names are, and the fingerprint is that of the whole."""

    @property
    def identity(self) -> dict[str, str]:
        """Return what a write upon this version has to name."""
        return {"name": self.name, "namespace": self.namespace, "resourceVersion": str(self.version)}


def version_of(manifest: Mapping[str, Any]) -> int:
    """Return the version of an object: of two of the same kind, the greater one is newer (https://kep.k8s.io/5504)."""
    return int(manifest["metadata"]["resourceVersion"])


def see(manifest: Mapping[str, Any]) -> SeenBuild:
    """Return what a manifest shows."""
    meta = manifest["metadata"]
    build, error = None, None
    try:
        build, lost = read_build(manifest)
        if lost:
            name = f"{meta['namespace']}/{meta['name']}"
            _LOG.warning("parts of the status are of another version of the operator", build=name, left_out=lost)
    except ValidationError as caught:
        error = caught
    trimmed = without_contents(build) if build is not None else None
    return SeenBuild(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=version_of(manifest),
        deleting="deletionTimestamp" in meta,
        build=trimmed,
        error=error,
        complete=trimmed is build,
    )


def without_contents(build: MultiArchBuild) -> MultiArchBuild:
    """Return `build` without the contents of its inline files where they are large."""
    spec = build.spec
    inline = spec.source.inline
    if inline is None or sum(map(len, inline.files.values())) <= KEPT_BYTES:
        return build
    named = inline.model_copy(update={"files": dict.fromkeys(inline.files, "")})
    trimmed = spec.model_copy(update={"source": spec.source.model_copy(update={"inline": named})})
    identify(trimmed, fingerprint(spec))
    return build.model_copy(update={"spec": trimmed})
