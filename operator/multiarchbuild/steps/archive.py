"""Unpacks an archive that somebody else has made: nothing in it reaches outside of its folder, and it has an end."""

import errno
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from multiarchbuild.api.reasons import Reason

from .errors import StepError

MAX_BYTES = 4 * 1024**3
"""Bytes of an archive, and again of all that is in it."""
MAX_ENTRIES = 250_000
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins, and an empty one."""
_NOT_ITS_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE})
_END_OF_TIME = 2**33
"""Seconds since the epoch that an entry's time may be at most; archives can claim anything."""


def unpack(archive: Path, folder: Path, what: str) -> int:
    """Unpack `archive` (tar, tar.gz, tar.bz2, tar.xz or zip) into `folder`, which is new.

    Returns the time of its newest file, in seconds since the epoch; all files are dated with it, so that what is built
    does not depend on when it was unpacked. `what` names the archive in errors.

    Raises:
        StepError: it is no archive, is too large, or has entries that a build context must not have.
    """
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            zipped = file.read(4) in _ZIP
        times = list(_unzip(archive, folder, what) if zipped else _untar(archive, folder, what))
    except (tarfile.FilterError, _HostileError) as error:
        raise _invalid(f"{what} must not be unpacked: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, LZMAError, NotImplementedError) as error:
        kinds = "tar, tar.gz, tar.bz2, tar.xz or zip"
        raise _invalid(f"{what} cannot be unpacked as {kinds}: {error}") from error
    except (ValueError, KeyError, RecursionError) as error:
        # tarfile follows hard links to what is not there, or round in circles.
        raise _invalid(f"{what} has an entry that cannot be written: {error}") from error
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
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


class _Budget:
    """What is left of the limits."""

    def __init__(self) -> None:
        self._bytes, self._entries = MAX_BYTES, MAX_ENTRIES

    def spend(self, size: int) -> None:
        self._bytes -= size
        self._entries -= 1
        if self._bytes < 0 or self._entries < 0:
            raise _HostileError(f"it holds more than {MAX_BYTES // 1024**3} GiB or {MAX_ENTRIES} entries")


def _untar(archive: Path, folder: Path, what: str) -> Iterator[float]:
    budget = _Budget()
    with tarfile.open(archive, "r:*") as tar:
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
