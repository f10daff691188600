"""A folder as a tarball that is the same bytes for the same content, whoever packs it and when."""

import gzip
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from multiarchbuild.oci.trees import Packer

from .dockerignore import Hits, Ignore, PatternError
from .errors import UsageError

_LEVEL = 6
_DIGITS = 11
"""Of the seconds that a tar can hold without extended headers."""
_GIT = ".git"
"""A repository, or in a submodule the file that says where it is."""


@dataclass(frozen=True, slots=True)
class Context:
    """A folder that is to be built."""

    root: Path
    dockerfile: str
    """Path of the Dockerfile below root, with slashes."""
    ignore: Ignore
    ignore_file: str | None
    """Path of the ignore file below root, or None where there is none."""
    keep_git_dir: bool = False
    """Whether what is named `.git` belongs to the context."""

    @classmethod
    def open(cls, root: Path, dockerfile: str, *, keep_git_dir: bool = False) -> "Context":
        """Return the context in `root`; `<Dockerfile>.dockerignore` goes before `.dockerignore`, as in BuildKit.

        Raises:
            UsageError: there is no such folder or Dockerfile in it, or its ignore file is malformed.
        """
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder")
        if not (root / dockerfile).is_file():
            raise UsageError(f"{root} has no {dockerfile}: name the Dockerfile with --file")
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            if (root / name).is_file():
                try:
                    ignore = Ignore.parse((root / name).read_text(encoding="utf-8"))
                    return cls(root, dockerfile, ignore, name, keep_git_dir)
                except (PatternError, UnicodeDecodeError) as error:
                    raise UsageError(f"{root / name}: {error}") from error
        return cls(root, dockerfile, Ignore(), None, keep_git_dir)

    @property
    def leaves_git_out(self) -> bool:
        """Whether there is a repository that does not belong to the context."""
        return not self.keep_git_dir and (self.root / _GIT).exists()

    def entries(self) -> Iterator[str]:
        """Yield what belongs to the context, each folder before what is in it, in the same order everywhere.

        The Dockerfile and the ignore file belong to it whatever is ignored: the builder reads both, and leaves out
        what the latter says.
        """
        kept = {self.dockerfile, self.ignore_file}
        for path in self._walk("", (), ignored=False):
            yield path
            kept.discard(path)
        # What is left is in folders that may not have been there either: they are made when it is unpacked.
        yield from sorted(path for path in kept if path is not None)

    def _walk(self, folder: str, above: Hits, *, ignored: bool) -> Iterator[str]:
        try:
            found = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if ignored:
                return
            raise UsageError(f"cannot read {self.root / folder}: {error.strerror}") from error
        for entry in found:
            if entry.name == _GIT and not self.keep_git_dir:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            hits = self.ignore.hits(path, above)
            ignored = self.ignore.decide(hits)
            if not entry.is_dir(follow_symlinks=False):
                if not ignored and (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                    yield path
                continue
            below = self._walk(path, hits, ignored=ignored) if not ignored or self.ignore.has_exceptions else iter(())
            if not ignored:
                yield path
                yield from below
            elif (first := next(below, None)) is not None:
                yield path
                yield first
                yield from below


@dataclass(frozen=True, slots=True)
class Packed:
    """A tarball."""

    digest: str
    """Of the compressed bytes."""
    diff_id: str
    """Digest of what they are when they are decompressed."""
    size: int
    """Compressed bytes."""
    files: int
    """Entries in it."""


def source_date(environment: Mapping[str, str]) -> int:
    """Return SOURCE_DATE_EPOCH of the environment in seconds, 0 where it is not set.

    Source: https://reproducible-builds.org/specs/source-date-epoch/

    Raises:
        UsageError: it is not a number of seconds.
    """
    text = environment.get("SOURCE_DATE_EPOCH", "") or "0"
    if not text.isdecimal() or len(text) > _DIGITS:
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds since 1970")
    return int(text)


def pack(context: Context, to: BinaryIO, progress: Callable[[int], None] = lambda _: None, *, time: int = 0) -> Packed:
    """Write `context` to `to` as tar+gzip and return what was written; `progress` hears how many bytes were read.

    All files have `time` (seconds since the epoch) and belong to root: what COPY would take over is what counts.

    Raises:
        UsageError: a file cannot be read or changes meanwhile.
    """
    compressed, files = _Hashing(to), 0
    with gzip.GzipFile(
        filename="", mode="wb", fileobj=cast("BinaryIO", compressed), mtime=0, compresslevel=_LEVEL
    ) as gz:
        plain = _Hashing(cast("BinaryIO", gz))
        with tarfile.open(mode="w|", fileobj=cast("BinaryIO", plain), format=tarfile.PAX_FORMAT) as tar:
            packer = Packer(tar, context.root, time)
            for path in context.entries():
                try:
                    packer.add(path)
                except OSError as error:
                    raise UsageError(f"cannot pack {context.root / path}: {error.strerror or error}") from error
                files += 1
                progress(plain.size)
    return Packed(compressed.digest, plain.digest, compressed.size, files)


class _Hashing:
    """Writes through, and hashes and counts what passes."""

    def __init__(self, to: BinaryIO) -> None:
        self._to, self._hash, self.size = to, hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._to.write(data)

    def flush(self) -> None:
        self._to.flush()
