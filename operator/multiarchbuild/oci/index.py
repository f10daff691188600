"""One OCI index over the images of several builders.

BuildKit's own multi-platform index lists the images and after them their attestation manifests; so does
this one, and the descriptors in it are those that BuildKit wrote, field for field. Where the index is to be
reproducible, `provenance.py` has put other attestation manifests in the place of BuildKit's before.

Sources: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md and
https://github.com/moby/buildkit/blob/v0.32.2/docs/attestations/attestation-storage.md
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api.foreign import parse_object
from multiarchbuild.api.platforms import Platform

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_TYPES = (INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_REFERENCE_TYPE = "vnd.docker.reference.type"

_SYSTEM = ("os.version", "os.features")
"""Fields of a config that a descriptor's platform has too (image-spec, "image-index.md")."""

_MAX_SIZE = 2**63 - 1
"""Of a blob, in bytes (image-spec, "descriptor.md": int64)."""

Descriptor = Mapping[str, Any]


def digest_of(content: bytes) -> str:
    """Return the digest of a blob or manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, as the registry has it."""

    media_type: str
    raw: bytes

    @property
    def digest(self) -> str:
        """The digest of its bytes."""
        return digest_of(self.raw)

    @property
    def content(self) -> Mapping[str, Any]:
        """Its JSON.

        Raises:
            ValueError: the bytes are not a JSON object, see `parse_object`.
        """
        return parse_object(self.raw, self.digest)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one platform, with what attests to it."""

    platform: Platform
    descriptor: Descriptor
    attestations: tuple[Descriptor, ...]


def find_image(built: Manifest, platform: Platform, config: Mapping[str, Any] | None = None) -> Image:
    """Return the image for `platform` in what a builder pushed: an index, or the manifest of the only image.

    `config` is that of the only image. What it says of the system that it needs (`os.version`, by which Windows
    chooses) stands in the index too, as BuildKit writes it where it makes one.

    Raises:
        ValueError: `built` has no image for `platform`.
    """
    if built.media_type not in (INDEX, DOCKER_LIST):
        own = {"mediaType": built.media_type, "digest": built.digest, "size": len(built.raw)}
        system = {name: value for name in _SYSTEM if (value := (config or {}).get(name))}
        return Image(platform, {**own, "platform": {**platform.descriptor(), **system}}, ())
    descriptors: Sequence[Descriptor] = built.content.get("manifests", ())
    image = next((entry for entry in descriptors if _runs_on(entry, platform)), None)
    if image is None:
        has = ", ".join(_describe(entry) for entry in descriptors if not _is_attestation(entry)) or "none"
        raise ValueError(f"{built.digest} has no image for {platform}; it has {has}")
    return Image(platform, image, tuple(entry for entry in descriptors if _attests(entry, image)))


def assemble(images: Sequence[Image], annotations: Mapping[str, str]) -> Manifest:
    """Return the index over `images`: the images in their order, then their attestations in the same order.

    The same input always makes the same bytes.
    """
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [image.descriptor for image in images]
        + [attestation for image in images for attestation in image.attestations],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return Manifest(INDEX, json.dumps(document, indent=2, ensure_ascii=False).encode())


def stored_size(image: Mapping[str, Any]) -> int:
    """Return the compressed bytes of config and layers of an image's manifest.

    Raises:
        ValueError: a size is not one.
    """
    return sum(size_of(blob) for blob in (image["config"], *image.get("layers", ())))


def size_of(blob: Descriptor) -> int:
    """Return the bytes of a blob, as its descriptor says.

    Raises:
        ValueError: it says no number of bytes.
    """
    size = blob["size"]
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise ValueError("a blob has a size that is not a number of bytes")
    return size


def _is_attestation(descriptor: Descriptor) -> bool:
    return _REFERENCE_TYPE in descriptor.get("annotations", {})


def _attests(descriptor: Descriptor, image: Descriptor) -> bool:
    annotations = descriptor.get("annotations", {})
    return _REFERENCE_TYPE in annotations and annotations.get(_REFERENCE_DIGEST) == image["digest"]


def _runs_on(descriptor: Descriptor, platform: Platform) -> bool:
    return not _is_attestation(descriptor) and _describe(descriptor) == str(platform)


def _describe(descriptor: Descriptor) -> str:
    fields = descriptor.get("platform", {})
    architecture, variant = fields.get("architecture", "unknown"), fields.get("variant", "")
    if (architecture, variant) in {("arm64", "v8"), ("amd64", "v1")}:
        variant = ""
    return "/".join(filter(None, (fields.get("os", "unknown"), architecture, variant)))
