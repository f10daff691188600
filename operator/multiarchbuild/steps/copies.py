"""An image in further repositories: the same bytes, so that it has the same digest everywhere."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import RefusedError
from multiarchbuild.oci.index import INDEX, Manifest

from .log import say

_PARALLEL = 4
"""Blobs at the same time: each may lie in a file meanwhile."""


def copy(source: Client, target: Client, root: Manifest, folder: Path) -> None:
    """Store `root` and all that it lists in `target`; blobs that are not there pass through files in `folder`.

    Nothing gets a tag.

    Raises:
        RegistryError: either registry refuses.
    """
    # First of all the right to push: a token for reading only would be replaced while others use it.
    target.check_push()
    listed = [source.get(str(entry["digest"])) for entry in _entries(root)]
    blobs = {
        str(blob["digest"]): int(blob["size"]) for manifest in (root, *listed) for blob in _blobs(manifest.content)
    }
    with ThreadPoolExecutor(_PARALLEL) as threads:
        sent = sum(threads.map(lambda blob: _copy_blob(source, target, blob[0], blob[1], folder), blobs.items()))
    # An index names what must be there before it.
    for manifest in (*listed, root):
        target.put(manifest, manifest.digest)
    if not target.exists(root.digest):
        raise RefusedError(f"{target.repository.registry} accepted {root.digest} but does not return it")
    say(f"copied {root.digest} to {target.repository}: {sent} of {len(blobs)} blobs sent")


def _entries(root: Manifest) -> Sequence[Mapping[str, Any]]:
    entries: Sequence[Mapping[str, Any]] = root.content["manifests"] if root.media_type == INDEX else ()
    return entries


def _blobs(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "config" in manifest:
        yield manifest["config"]
    yield from manifest.get("layers", ())


def _copy_blob(source: Client, target: Client, digest: str, size: int, folder: Path) -> bool:
    """Store a blob that `source` has in `target`; return whether its bytes had to be sent."""
    if target.has_blob(digest) or target.mount_blob(digest, source.repository):
        return False
    hashed = hashlib.sha256()
    with TemporaryFile(dir=folder) as file:
        for chunk in source.blob(digest):
            hashed.update(chunk)
            file.write(chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise RefusedError(f"{source.repository.registry} sent other bytes than the blob {digest}")
        file.seek(0)
        target.put_blob(digest, file, size)
    return True
