"""A directory that a registry serves: the file system layout of CNCF Distribution's storage.

Source: registry/storage/paths.go of distribution v3.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.build.oci import Blob, Digest, PlatformImage, index_of

_V2 = Path("docker", "registry", "v2")


def add_image(root: Path, name: str, images: Sequence[PlatformImage]) -> Digest:
    """Put a multi-platform image into the storage under ``repository:tag`` and return the digest of its index.

    Layers are hard-linked from where they are, so that must be the same file system.
    """
    repository, _, tag = name.rpartition(":")
    index = index_of(images)
    for image in images:
        for layer in image.layers:
            _link_blob(root, layer.path, layer.digest)
            _link(_repository(root, repository) / "_layers" / _hashed(layer.digest), layer.digest)
        _write_blob(root, image.config)
        _link(_repository(root, repository) / "_layers" / _hashed(image.config.digest), image.config.digest)
        _add_revision(root, repository, image.manifest)
    _add_revision(root, repository, index)
    tags = _repository(root, repository) / "_manifests" / "tags" / tag
    _link(tags / "current", index.digest)
    _link(tags / "index" / _hashed(index.digest), index.digest)
    return index.digest


def copy(root: Path, destination: Path) -> None:
    """Copy a storage directory into another; blobs are hard-linked where the file system allows it.

    Tags of the source are moved to what the source has; all else that is there stays. Only blobs share their files with
    the source: a registry never writes to a blob, but it does write to the small files that link to them.
    """
    for directory, _, files in os.walk(root):
        target = destination / Path(directory).relative_to(root)
        target.mkdir(parents=True, exist_ok=True)
        for name in files:
            source, copied = Path(directory, name), target / name
            if name != "data":
                shutil.copyfile(source, copied)
            elif not copied.exists():
                _link_or_copy(source, copied)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        partial = target.with_name("data.partial")
        shutil.copyfile(source, partial)
        partial.rename(target)


def _add_revision(root: Path, repository: str, manifest: Blob) -> None:
    _write_blob(root, manifest)
    revisions = _repository(root, repository) / "_manifests" / "revisions"
    _link(revisions / _hashed(manifest.digest), manifest.digest)


def _repository(root: Path, name: str) -> Path:
    return root / _V2 / "repositories" / name


def _hashed(digest: Digest) -> Path:
    algorithm, _, value = digest.partition(":")
    return Path(algorithm, value)


def _blob_path(root: Path, digest: Digest) -> Path:
    algorithm, _, value = digest.partition(":")
    return root / _V2 / "blobs" / algorithm / value[:2] / value / "data"


def _write_blob(root: Path, blob: Blob) -> None:
    path = _blob_path(root, blob.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob.data)


def _link_blob(root: Path, source: Path, digest: Digest) -> None:
    path = _blob_path(root, digest)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(source)


def _link(directory: Path, digest: Digest) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "link").write_text(digest)
