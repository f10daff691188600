"""Unpacks an archive that somebody else has made: nothing in it reaches outside of its folder, and it has an end."""

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.trees import CHUNK, DamagedError, Stream, Tree, UnsafeError
from multiarchbuild.oci.trees import unpack as untar

from .dates import date, within_formats
from .errors import StepError

MAX_BYTES = 4 * 1024**3
"""Bytes of an archive, and again of all that is in it."""
MAX_ENTRIES = 250_000
_KINDS = "tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip"
_BLOCK = 512
"""Bytes of a header of a tar."""
_MAGIC = {
    "zip": re.compile(rb"PK(\x03\x04|\x05\x06)"),
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    # After the size of the blocks the magic of a block, or of the end of an empty stream.
    "bzip2": re.compile(rb"BZh[1-9](\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    # A frame, or one to be skipped, which some programs write first (RFC 8878, section 3.1).
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
"""How each format begins."""
_WINDOW_LOG = 27
"""Window that a Zstandard frame may ask for, and so memory: 128 MiB, as the program zstd gives by default."""
_XZ_MEMORY = 256 * 1024**2
"""Bytes that the decoder of xz may ask for; `xz -9` needs 65 MiB."""
_CENTRAL_DIRECTORY = 128 * 1024**2
"""Bytes of the list of entries at the end of a zip, which is read as a whole."""
_ENTRY_OF_ZIP = b"PK\x01\x02"
_ENCRYPTED = 0x1
"""Bit of a zip's entry (APPNOTE.TXT, section 4.4.4)."""
_UNIX = 3
"""System that made an entry of a zip, and so its modes (section 4.4.2)."""
_LONGEST_LINK = 4096
"""Bytes of a link's target at most (PATH_MAX)."""
_DRIVE = re.compile(r"[A-Za-z]:/")
_NOT_ITS_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE})


def unpack(archive: Path, folder: Path, what: str) -> int:
    """Unpack `archive` (tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip) into `folder`, which is new.

    Returns the date of its newest file, in seconds since the epoch; all files are dated with it, so that what is built
    does not depend on when it was unpacked. `what` names the archive in errors.

    Raises:
        StepError: it is no archive, is too large, or has entries that a build context must not have.
    """
    folder.mkdir(parents=True)
    budget = _Budget()
    try:
        with archive.open("rb") as file:
            times = (_unzip if _kind(file) == "zip" else _untar)(file, Tree(folder), budget)
            newest = within_formats(max(times, default=0))
    except UnsafeError as error:
        raise _invalid(f"{what} must not be unpacked: {error}") from error
    except (
        *(tarfile.TarError, zipfile.BadZipFile, DamagedError),
        *(EOFError, zlib.error, lzma.LZMAError, NotImplementedError),
    ) as error:
        raise _invalid(f"{what} cannot be unpacked as {_KINDS}: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        # Names and numbers that nothing can be made of; headers before headers.
        raise _invalid(f"{what} has an entry that cannot be written: {error}") from error
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise StepError(
                Reason.STEP_FAILED, f"{what} could not be unpacked in the pod: {error.strerror}."
            ) from error
        if error.errno is None:
            # What gzip and bz2 say of their data.
            raise _invalid(f"{what} cannot be unpacked as {_KINDS}: {error}") from error
        raise _invalid(f"{what} has an entry that cannot be written: {error.strerror}") from error
    if budget.is_unused:
        raise _invalid(f"{what} is empty.")
    date(folder, newest)
    return newest


class _Budget:
    """What is left of the limits."""

    def __init__(self) -> None:
        self._bytes, self._entries = MAX_BYTES, MAX_ENTRIES

    @property
    def is_unused(self) -> bool:
        """Whether there was no entry."""
        return self._entries == MAX_ENTRIES

    def spend(self, size: int) -> None:
        self._bytes -= size
        self._entries -= 1
        if self._bytes < 0 or self._entries < 0:
            raise _too_much()


def _too_much() -> UnsafeError:
    return UnsafeError(f"it holds more than {MAX_BYTES // 1024**3} GiB or {MAX_ENTRIES} entries")


def _kind(file: BinaryIO) -> str:
    """Return the format of an archive by its beginning: `tar` where it is of none that has a magic."""
    head = file.read(_BLOCK)
    file.seek(0)
    found = next((kind for kind, magic in _MAGIC.items() if magic.match(head)), "tar")
    # A tar has its magic not at the beginning, where the name of a file stands, which may look like anything.
    return "tar" if _is_header(head) else found


def _is_header(head: bytes) -> bool:
    """Whether this is the first header of a tar, whose name looks like the beginning of something else.

    Its checksum is not enough: tarfile takes an empty one for 0, which is what the bytes of some compressed data add
    up to, for those of gzip depending on the second in which they were made.
    """
    if head[257:262] != b"ustar":
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _untar(file: BinaryIO, tree: Tree, budget: _Budget) -> Iterator[float]:
    with _decompressed(file) as stream:
        yield from untar(stream, tree, budget.spend)


@contextmanager
def _decompressed(file: BinaryIO) -> Iterator[Stream]:
    match _kind(file):
        case "gzip":
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        case "bzip2":
            with bz2.BZ2File(file) as stream:
                yield stream
        case "xz":
            yield io.BufferedReader(_Xz(file), CHUNK)
        case "zstd":
            yield from _unzstd(file)
        case _:
            yield file


def _unzstd(file: BinaryIO) -> Iterator[Stream]:
    # Loaded for such archives only.
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    try:
        with zstd.open(file, options=window) as stream:
            yield stream
    except zstd.ZstdError as error:
        raise DamagedError(str(error)) from error


class _Xz(io.RawIOBase):
    """Decompresses xz within `_XZ_MEMORY`, which `lzma.LZMAFile` cannot be told."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        while True:
            data = b""
            if self._decoder is None or self._decoder.eof:
                data = self._beginning()
                if not data:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            elif self._decoder.needs_input and not (data := self._file.read(CHUNK)):
                raise EOFError("the compressed data is incomplete")
            if found := self._decoder.decompress(data, len(view)):
                view[: len(found)] = found
                return len(found)

    def _beginning(self) -> bytes:
        """Return the beginning of the next stream after its padding, or nothing at the end."""
        data = self._decoder.unused_data if self._decoder else b""
        while not (data := data.lstrip(b"\0")):
            if not (data := self._file.read(CHUNK)):
                break
        return data


def _unzip(file: BinaryIO, tree: Tree, budget: _Budget) -> Iterator[float]:
    with zipfile.ZipFile(cast("BinaryIO", _ZipFile(file))) as zipped:
        for info in zipped.infolist():
            budget.spend(info.file_size)
            name = info.filename.replace("\\", "/")
            if _DRIVE.match(name):
                raise UnsafeError(f"{info.filename!r} is an absolute path")
            if info.flag_bits & _ENCRYPTED:
                raise UnsafeError(f"{info.filename!r} is encrypted: make the archive without a password")
            if info.compress_type == zipfile.ZIP_LZMA:
                raise UnsafeError(f"{info.filename!r} is compressed with LZMA: use deflate, as other zips do")
            mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
            if name.endswith("/"):
                tree.folder(name, mode or 0o755)
            elif stat.S_ISLNK(mode):
                tree.symlink(name, _target(zipped, info))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                tree.file(name, _content(zipped, info), mode or 0o644)
                yield _time(info)
            else:
                raise UnsafeError(f"{info.filename!r} is neither a file, a folder nor a link")
        tree.finish()


class _ZipFile:
    """What zipfile reads from; it reads the list of entries as a whole, however long that is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes of the file, which for a list of entries are not too many."""
        if size > _CENTRAL_DIRECTORY:
            raise _too_much()
        data = self._file.read(size)
        # Each of them becomes an object: more than are allowed would fill the memory before one can be counted.
        if data.startswith(_ENTRY_OF_ZIP) and data.count(_ENTRY_OF_ZIP) > MAX_ENTRIES:
            raise _too_much()
        return data


def _target(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    if info.file_size > _LONGEST_LINK:
        raise UnsafeError(f"the link {info.filename!r} has a target of more than {_LONGEST_LINK} bytes")
    return zipped.read(info).decode(errors="surrogateescape")


def _content(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with zipped.open(info) as source:
        # zipfile reads no more than the size that the entry claims, which is what was counted.
        while chunk := source.read(CHUNK):
            yield chunk


def _time(info: zipfile.ZipInfo) -> float:
    """Return the time of an entry; programs that know none write zeros, which is no date."""
    try:
        return datetime(*info.date_time, tzinfo=UTC).timestamp()
    except ValueError:
        return 0


def _invalid(message: str) -> StepError:
    return StepError(Reason.SOURCE_INVALID, message)
