"""A tarball as an OCI artifact of the shape that `flux push artifact` makes.

Source: https://fluxcd.io/flux/cheatsheets/oci-artifacts/ and github.com/fluxcd/pkg/oci (`meta.go`, `push_pull.go`).
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import BinaryIO, Final

from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.index import MANIFEST, Manifest, digest_of
from multiarchbuild.oci.trees import CHUNK

from .pack import Packed

CONFIG = "application/vnd.cncf.flux.config.v1+json"
CONTENT = "application/vnd.cncf.flux.content.v1.tar+gzip"
TAG_PREFIX = "source-"
"""How the tags of sources begin: a tag keeps a registry from collecting what nothing else names."""
MAX_BYTES: Final = 4 * 1024**3
"""Bytes of a tarball that are compared; a build step unpacks no more."""
_TAG_LENGTH = 32
"""Hexadecimal digits of the digest in a tag: 128 bits, so that nobody finds two tarballs with one tag."""
_GZIP = 16 + zlib.MAX_WBITS
"""What tells zlib that the data has a header of gzip."""


def config_of(packed: Packed) -> bytes:
    """Return the config of the artifact: that of an image without a platform, as Flux writes it."""
    document = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [packed.diff_id]},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def manifest_of(packed: Packed) -> Manifest:
    """Return the manifest of the artifact. It holds no time: the same files are the same artifact."""
    config = config_of(packed)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        # Of OCI 1.1: registries show it, and older readers go by the config's type, which is the same.
        "artifactType": CONFIG,
        "config": {
            "mediaType": CONFIG,
            "size": len(config),
            "digest": digest_of(config),
        },
        "layers": [{"mediaType": CONTENT, "size": packed.size, "digest": packed.digest}],
    }
    return Manifest(MANIFEST, json.dumps(document, separators=(",", ":")).encode())


def find(client: Client, packed: Packed) -> str | None:
    """Return the digest of an artifact in the repository that holds the same tarball, or None.

    Compressed by another version of zlib the same tarball is other bytes. The artifact is found by the tag that the
    uncompressed tarball makes; what it claims is believed only once its bytes have been decompressed and compared.

    Raises:
        multiarchbuild.oci.errors.RegistryError: the registry does not say.
    """
    try:
        found = client.resolve(tag(packed))
        if found.digest == manifest_of(packed).digest:
            return found.digest
        (layer,) = found.content["layers"]
        return found.digest if _diff_id(client.blob(layer["digest"])) == packed.diff_id else None
    except (NotFoundError, ValueError, KeyError, TypeError, OSError, zlib.error):
        return None  # there is none, or something else has the tag


def tag(packed: Packed) -> str:
    """Return the tag of the artifact: the same for the same files, however they are compressed."""
    return TAG_PREFIX + packed.diff_id.removeprefix("sha256:")[:_TAG_LENGTH]


def push(client: Client, packed: Packed, content: BinaryIO) -> str:
    """Push the artifact unless the registry has one with the same tarball; return the digest of the one that it has.

    Raises:
        multiarchbuild.oci.errors.RegistryError: the registry does not take it.
    """
    if found := find(client, packed):
        return found
    manifest, config = manifest_of(packed), config_of(packed)
    content.seek(0)
    client.put_blob(packed.digest, content, packed.size)
    client.put_blob(digest_of(config), config, len(config))
    client.put(manifest, tag(packed))
    return manifest.digest


def _diff_id(chunks: Iterable[bytes]) -> str:
    """Return the digest of what gzip has made `chunks` of; at most MAX_BYTES of it are looked at."""
    hashed, decoder, left = hashlib.sha256(), zlib.decompressobj(_GZIP), MAX_BYTES
    for chunk in chunks:
        data = chunk
        while data and left > 0:
            plain = decoder.decompress(data, CHUNK)
            hashed.update(plain)
            left -= len(plain)
            data = decoder.unconsumed_tail
    hashed.update(decoder.flush())
    return f"sha256:{hashed.hexdigest()}" if decoder.eof else ""
