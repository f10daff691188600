"""A tarball as an OCI artifact of the shape that `flux push artifact` makes.

Source: https://fluxcd.io/flux/cheatsheets/oci-artifacts/ and github.com/fluxcd/pkg/oci (`meta.go`, `push_pull.go`).
"""

import json
from typing import BinaryIO

from multiarchbuild.oci.client import Client
from multiarchbuild.oci.index import MANIFEST, Manifest, digest_of

from .pack import Packed

CONFIG = "application/vnd.cncf.flux.config.v1+json"
CONTENT = "application/vnd.cncf.flux.content.v1.tar+gzip"
TAG_PREFIX = "source-"
"""How the tags of sources begin: a tag keeps a registry from collecting what nothing else names."""


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
        "config": {
            "mediaType": CONFIG,
            "size": len(config),
            "digest": digest_of(config),
        },
        "layers": [{"mediaType": CONTENT, "size": packed.size, "digest": packed.digest}],
    }
    return Manifest(MANIFEST, json.dumps(document, separators=(",", ":")).encode())


def push(client: Client, packed: Packed, content: BinaryIO) -> str:
    """Push the artifact and return its name by digest.

    Raises:
        multiarchbuild.oci.errors.RegistryError: the registry does not take it.
    """
    manifest, config = manifest_of(packed), config_of(packed)
    name = f"{client.repository}@{manifest.digest}"
    if client.exists(manifest.digest):
        return name
    content.seek(0)
    client.put_blob(packed.digest, content, packed.size)
    client.put_blob(digest_of(config), config, len(config))
    client.put(manifest, TAG_PREFIX + manifest.digest.removeprefix("sha256:")[:12])
    return name
