"""OCI images on disk: layers, configurations, manifests, indexes, all byte for byte the same for the same input.

Source: OCI Image Format Specification 1.1.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NewType, Self

Digest = NewType("Digest", str)
"""``sha256:`` and 64 hex digits."""

MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_COMPRESSION_LEVEL = 6
_GZIP_WINDOW_BITS = 31
_CREATED = "2026-01-01T00:00:00Z"
_ENTRY_TIME = 1767225600  # _CREATED


def digest_of(data: bytes) -> Digest:
    """Return the digest of some bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@dataclass(frozen=True)
class Blob:
    """Content that is addressed by its digest."""

    data: bytes

    @property
    def digest(self) -> Digest:
        """The digest of the content."""
        return digest_of(self.data)

    def descriptor(self, media_type: str) -> dict[str, Any]:
        """Return the descriptor that refers to the content."""
        return {"mediaType": media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Layer:
    """A compressed layer in a file: its digest and size in bytes as stored, and the digest of the tar inside."""

    path: Path
    digest: Digest
    diff_id: Digest
    size: int


@dataclass(frozen=True)
class Settings:
    """How a container of an image runs: the part of the image configuration that is for people to choose."""

    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    volumes: tuple[str, ...] = ()

    def as_config(self) -> dict[str, Any]:
        """Return the ``config`` object of an image configuration."""
        config: dict[str, Any] = {"Env": [f"{name}={value}" for name, value in self.env.items()]}
        if self.entrypoint:
            config["Entrypoint"] = list(self.entrypoint)
        if self.cmd:
            config["Cmd"] = list(self.cmd)
        if self.user:
            config["User"] = self.user
        if self.volumes:
            config["Volumes"] = {path: {} for path in self.volumes}
        return config


@dataclass(frozen=True)
class PlatformImage:
    """The image of one architecture: its manifest, its configuration and its layers."""

    arch: str
    manifest: Blob
    config: Blob
    layers: tuple[Layer, ...]


def platform_image(arch: str, settings: Settings, layers: Sequence[Layer]) -> PlatformImage:
    """Return the image that has these layers, lowest first, and these settings."""
    config = _json_blob(
        {
            "created": _CREATED,
            "architecture": arch,
            "os": "linux",
            "config": settings.as_config(),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _CREATED, "created_by": "local cluster"} for _ in layers],
        }
    )
    manifest = _json_blob(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": config.descriptor(MEDIA_TYPE_CONFIG),
            "layers": [{"mediaType": MEDIA_TYPE_LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
        }
    )
    return PlatformImage(arch, manifest, config, tuple(layers))


def index_of(images: Sequence[PlatformImage], annotations: Mapping[str, str] | None = None) -> Blob:
    """Return the index that lists these images in this order, each with its platform (linux)."""
    entries = []
    for image in images:
        entry = image.manifest.descriptor(MEDIA_TYPE_MANIFEST)
        entry["platform"] = {"architecture": image.arch, "os": "linux"}
        entries.append(entry)
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries}
    if annotations:
        index["annotations"] = dict(annotations)
    return _json_blob(index)


def write_archive(path: Path, reference: str, images: Sequence[PlatformImage]) -> None:
    """Write an OCI image layout as a tar file that ``ctr images import`` reads, the index named by a full reference."""
    index = index_of(images)
    top = index.descriptor(MEDIA_TYPE_INDEX)
    top["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    blobs = {blob.digest: blob.data for image in images for blob in (image.manifest, image.config)}
    blobs |= {layer.digest: layer.path.read_bytes() for image in images for layer in image.layers}
    blobs[index.digest] = index.data
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _json_blob({"schemaVersion": 2, "manifests": [top]}).data,
        **{f"blobs/{digest.replace(':', '/')}": data for digest, data in sorted(blobs.items())},
    }
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            archive.addfile(_entry(name, tarfile.REGTYPE, 0o644, size=len(data)), io.BytesIO(data))


class LayerWriter:
    """Writes one layer: a gzip-compressed tar whose times and owners do not depend on when and where it is made.

    Used as a context manager; ``layer`` is there after the block. A directory is written once: a second entry for the
    same path is ignored, so that several packages can bring the same directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directories: set[str] = set()
        self.layer: Layer | None = None

    def __enter__(self) -> Self:
        """Open the file."""
        self._file = self._path.open("wb")
        self._sink = _CompressedSink(self._file)
        self._tar = tarfile.open(fileobj=self._sink, mode="w|", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and, unless the block raised, describe the layer."""
        with self._file:
            self._tar.close()
            self._sink.finish()
        if kind is not None:
            return
        self.layer = Layer(
            path=self._path,
            digest=Digest(f"sha256:{self._sink.compressed.hexdigest()}"),
            diff_id=Digest(f"sha256:{self._sink.raw.hexdigest()}"),
            size=self._sink.size,
        )

    def directory(self, path: str, *, mode: int = 0o755, uid: int = 0) -> None:
        """Add a directory, and those above it that were not added yet (those belong to root and have mode 0755)."""
        self._parents(path)
        if path not in self._directories:
            self._directories.add(path)
            self._tar.addfile(_entry(path, tarfile.DIRTYPE, mode, uid=uid))

    def file(self, path: str, content: bytes | Path, *, mode: int = 0o644, uid: int = 0) -> None:
        """Add a regular file."""
        self._parents(path)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        entry = _entry(path, tarfile.REGTYPE, mode, uid=uid, size=size)
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source:
            self._tar.addfile(entry, source)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(path)
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._tar.addfile(entry)

    def copy(self, entry: tarfile.TarInfo, content: IO[bytes] | None, *, capability: bytes = b"") -> None:
        """Add an entry of another archive with its mode, numeric owner and time.

        With ``capability`` the file gets that capability in place of a set-uid bit.
        """
        self._parents(entry.name)
        if entry.isdir():
            if entry.name in self._directories:
                return
            self._directories.add(entry.name)
        entry.uname = entry.gname = ""
        entry.pax_headers = _capability_headers(capability)
        if capability:
            entry.mode &= ~stat.S_ISUID
        entry.mtime = int(entry.mtime)
        self._tar.addfile(entry, content)

    def _parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)


class _CompressedSink(io.RawIOBase):
    """A file that compresses what is written to it and keeps the digests of both sides."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        # With these window bits zlib writes a gzip header without a time.
        self._compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
        self.raw = hashlib.sha256()
        self.compressed = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.raw.update(data)
        self._emit(self._compressor.compress(data))
        return len(data)

    def finish(self) -> None:
        self._emit(self._compressor.flush())

    def _emit(self, data: bytes) -> None:
        self.compressed.update(data)
        self.size += len(data)
        self._file.write(data)


def _entry(path: str, kind: bytes, mode: int, *, uid: int = 0, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.uid = entry.gid = uid
    entry.mtime = _ENTRY_TIME
    return entry


def _capability_headers(capability: bytes) -> dict[str, str]:
    # tarfile writes a value that is not UTF-8 as the bytes that were escaped here, and says so (hdrcharset).
    text = capability.decode("utf-8", "surrogateescape")
    return {"SCHILY.xattr.security.capability": text} if text else {}


def _json_blob(value: Any) -> Blob:
    return Blob(json.dumps(value, separators=(",", ":")).encode())
