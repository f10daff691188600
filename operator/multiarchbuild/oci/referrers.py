"""Artifacts that refer to an image: attached and listed by the referrers API, or by the tag that stands in for it.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers, and there
"Referrers Tag Schema".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .client import Client
from .errors import NotFoundError, RefusedError
from .index import INDEX, MANIFEST, Descriptor, Manifest, digest_of

EMPTY: Final = b"{}"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_TRIES = 3
"""How often the tag is written: of two writers of one tag one loses its entry."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is attached: one blob of a type."""

    type: str
    content: bytes
    annotations: Mapping[str, str]


def tag(digest: str) -> str:
    """Return the tag that lists the referrers of `digest` where a registry has no referrers API."""
    return digest.replace(":", "-")


def attach(client: Client, subject: Descriptor, artifact: Artifact, *, uploaded: bool = False) -> str:
    """Store `artifact` as a referrer of `subject`, an image or an index; return the digest of its manifest.

    With `uploaded` the registry has its blobs, EMPTY among them, already.

    Raises:
        RegistryError: the registry refuses it, or does not list it afterwards.
    """
    for blob in () if uploaded else (EMPTY, artifact.content):
        client.put_blob(digest_of(blob), blob, len(blob))
    manifest = _manifest(subject, artifact)
    if client.put_referrer(manifest):
        return manifest.digest
    entry = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.raw),
        "artifactType": artifact.type,
        "annotations": dict(artifact.annotations),
    }
    where = tag(str(subject["digest"]))
    for _ in range(_TRIES):
        others = _by_tag(client, str(subject["digest"]))
        if any(each.get("digest") == manifest.digest for each in others):
            return manifest.digest
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]}
        client.put(Manifest(INDEX, json.dumps(document).encode()), where)
    raise RefusedError(f"{client.repository.registry} accepted {manifest.digest} but does not list it under {where}")


def listed(client: Client, digest: str, artifact_type: str) -> list[Descriptor]:
    """Return the descriptors of the manifests of `artifact_type` that refer to `digest`."""
    by_api = client.referrers(digest)
    entries = _entries(by_api) if by_api is not None else _by_tag(client, digest)
    return [entry for entry in entries if entry.get("artifactType") == artifact_type]


def everything(client: Client, digest: str) -> list[Descriptor]:
    """Return the descriptors of all manifests that refer to `digest`, by the API and by the tag."""
    by_api = client.referrers(digest)
    return [*(_entries(by_api) if by_api is not None else ()), *_by_tag(client, digest)]


def content(client: Client, descriptor: Descriptor) -> bytes | None:
    """Return the one blob of an artifact of at most 4 MiB, or None where the manifest has another shape."""
    try:
        (layer,) = client.get(str(descriptor["digest"])).content["layers"]
        return client.small_blob(str(layer["digest"]))
    except (ValueError, KeyError, TypeError, NotFoundError):
        return None


def alone(artifact: Artifact) -> Manifest:
    """Return the manifest of an artifact that refers to nothing."""
    return Manifest(MANIFEST, json.dumps(_document(artifact, {})).encode())


def _manifest(subject: Descriptor, artifact: Artifact) -> Manifest:
    refers = {"subject": {field: subject[field] for field in ("mediaType", "digest", "size")}}
    return Manifest(MANIFEST, json.dumps(_document(artifact, refers)).encode())


def _document(artifact: Artifact, refers: Mapping[str, Any]) -> dict[str, Any]:
    # In this order always: an artifact that is made again is the same bytes.
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.type,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": [_descriptor(artifact.type, artifact.content)],
        **refers,
        "annotations": dict(artifact.annotations),
    }


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def _by_tag(client: Client, digest: str) -> list[Descriptor]:
    try:
        return _entries(client.resolve(tag(digest)))
    except NotFoundError:
        return []


def _entries(index: Manifest) -> list[Descriptor]:
    try:
        entries: Sequence[Any] = index.content["manifests"]
        return [entry for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError):
        return []
