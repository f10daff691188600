"""Unpacks an archive that somebody else has made: nothing in it reaches outside of its folder, and it has an end."""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from multiarchbuild.api.reasons import Reason

from .errors import StepError

MAX_BYTES = 4 * 1024**3
"""Bytes of an archive, and again of all that is in it."""
MAX_ENTRIES = 250_000
_KINDS = "tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins, and an empty one."""
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
"""How a Zstandard frame begins, and one to be skipped, which some programs write first (RFC 8878, section 3.1)."""
_ZSTD_WINDOW_LOG = 27
"""Window that a frame may ask for, and so memory: 128 MiB, as the program zstd gives unless it is told otherwise."""
_PIECE = 16 * 1024**2
"""Bytes of a tar that may be asked for at once: contents are copied piece by piece, but headers read as a whole."""
_NOT_ITS_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE})
_END_OF_TIME = 2**33
"""Seconds since the epoch that an entry's time may be at most; archives can claim anything."""


def unpack(archive: Path, folder: Path, what: str) -> int:
    """Unpack `archive` (tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip) into `folder`, which is new.

    Returns the time of its newest file, in seconds since the epoch; all files are dated with it, so that what is built
    does not depend on when it was unpacked. `what` names the archive in errors.

    Raises:
        StepError: it is no archive, is too large, or has entries that a build context must not have.
    """
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            magic = file.read(4)
        times = list(_unzip(archive, folder, what) if magic in _ZIP else _untar(archive, folder, what, magic))
    except (tarfile.FilterError, _HostileError) as error:
        raise _invalid(f"{what} must not be unpacked: {error}") from error
    except (
        *(tarfile.TarError, zipfile.BadZipFile, _BrokenError),
        *(EOFError, zlib.error, lzma.LZMAError, NotImplementedError),
    ) as error:
        raise _invalid(f"{what} cannot be unpacked as {_KINDS}: {error}") from error
    except (ValueError, KeyError, RecursionError) as error:
        # tarfile follows hard links to what is not there, or round in circles.
        raise _invalid(f"{what} has an entry that cannot be written: {error}") from error
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
        if error.errno is None:
            # What gzip and bz2 say of their data.
            raise _invalid(f"{what} cannot be unpacked as {_KINDS}: {error}") from error
        raise _invalid(f"{what} has an entry that cannot be written: {error.strerror}") from error
    newest = min(max([int(time) for time in times], default=0), _END_OF_TIME)
    date(folder, max(newest, 0))
    return max(newest, 0)


def date(folder: Path, time: int) -> None:
    """Give `folder` and everything in it the same time, in seconds since the epoch."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)


class _HostileError(Exception):
    """An entry that would leave the folder, or one too many."""


class _BrokenError(Exception):
    """What is compressed is damaged, incomplete, or asks for too much memory."""


class _Budget:
    """What is left of the limits."""

    def __init__(self) -> None:
        self._bytes, self._entries = MAX_BYTES, MAX_ENTRIES

    def spend(self, size: int) -> None:
        self._bytes -= size
        self._entries -= 1
        if self._bytes < 0 or self._entries < 0:
            raise _HostileError(f"it holds more than {MAX_BYTES // 1024**3} GiB or {MAX_ENTRIES} entries")


@contextmanager
def _tar(archive: Path, magic: bytes) -> Iterator[tarfile.TarFile]:
    """Open a tar, however it is compressed. tarfile would do that too, and read any header into memory."""
    with _decompressed(archive, magic) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
        yield tar


@contextmanager
def _decompressed(archive: Path, magic: bytes) -> Iterator[io.BufferedIOBase]:
    plain = {b"\x1f\x8b": gzip.GzipFile, b"BZ": bz2.BZ2File, b"\xfd7": lzma.LZMAFile}
    if not _ZSTD.fullmatch(magic):
        with plain.get(magic[:2], io.FileIO)(archive) as stream:
            yield stream if isinstance(stream, io.BufferedIOBase) else io.BufferedReader(stream)
        return
    # Loaded for such archives only.
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    try:
        with zstd.open(archive, options=window) as stream:
            yield stream
    except zstd.ZstdError as error:
        raise _BrokenError(str(error)) from error


class _Bounded(io.BufferedIOBase):
    """What a stream decompresses to, in pieces that fit into memory; how many there may be is for the budget."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _PIECE:
            raise _HostileError(f"it has a header of more than {_PIECE // 1024**2} MiB")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _untar(archive: Path, folder: Path, what: str, magic: bytes) -> Iterator[float]:
    budget = _Budget()
    with _tar(archive, magic) as tar:
        found = False
        for member in tar:
            found = True
            budget.spend(max(member.size, 0))
            if member.name.startswith("/"):
                # The filter would make it a relative path, silently.
                raise _HostileError(f"{member.name!r} is an absolute path")
            tar.extract(member, folder, filter="data")
            if member.isfile():
                yield member.mtime
        if not found:
            raise _invalid(f"{what} is empty.")


def _unzip(archive: Path, folder: Path, what: str) -> Iterator[float]:
    budget, root = _Budget(), folder.resolve()
    with zipfile.ZipFile(archive) as zipped:
        if not zipped.infolist():
            raise _invalid(f"{what} is empty.")
        for info in zipped.infolist():
            budget.spend(info.file_size)
            mode = info.external_attr >> 16
            path = PurePosixPath(info.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0:1]:
                raise _HostileError(f"{info.filename!r} leads out of it")
            target = folder / path
            if not target.parent.resolve().is_relative_to(root):
                raise _HostileError(f"{info.filename!r} leads out of it through a link")
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(mode):
                _link(zipped, info, target, root)
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                _write(zipped, info, target, executable=bool(mode & 0o100))
                yield datetime(*info.date_time, tzinfo=UTC).timestamp()
            else:
                raise _HostileError(f"{info.filename!r} is neither a file, a folder nor a link")


def _link(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, root: Path) -> None:
    to = zipped.read(info).decode()
    if not (target.parent / to).resolve().is_relative_to(root) or PurePosixPath(to).is_absolute():
        raise _HostileError(f"the link {info.filename!r} leads out of it")
    target.unlink(missing_ok=True)
    target.symlink_to(to)


def _write(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, *, executable: bool) -> None:
    if target.is_symlink():
        target.unlink()
    with zipped.open(info) as source, target.open("wb") as file:
        # zipfile reads no more than the size that the entry claims, which is what was counted.
        shutil.copyfileobj(source, file)
    target.chmod(0o755 if executable else 0o644)


def _invalid(message: str) -> StepError:
    return StepError(Reason.SOURCE_INVALID, message)
