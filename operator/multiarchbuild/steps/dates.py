"""The date of the files of a build context: one for all, so that what is built does not depend on when.

Sources date files by what formats cannot hold: 0 (Flux, `kubectl mab build`), or anything at all. Zip, and so jars and
wheels, begin with 1980 in local time; gzip and others end in 2106.
"""

import hashlib
import math
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

EARLIEST: Final = int(datetime(1980, 1, 2, tzinfo=UTC).timestamp())
"""Seconds since the epoch. A day after the first that a zip can hold: it is 1980 in every time zone."""
LATEST: Final = 2**32 - 1 - 24 * 3600
"""Seconds since the epoch, in February 2106: it fits into 32 bits in every time zone."""


def within_formats(time: float) -> int:
    """Return `time`, in seconds since the epoch, or the nearest that every format can hold."""
    if math.isnan(time):
        return EARLIEST
    return int(min(max(time, EARLIEST), LATEST))


def date(folder: Path, time: int) -> None:
    """Give `folder` and everything in it the same time, in seconds since the epoch."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)


def tell_apart(folder: Path) -> None:
    """Let the time of each file in `folder` tell its content, in the nanoseconds that no layer has.

    A buildkitd that has seen an earlier version takes a file for the same whose size and time are (fsutil, `sameFile`),
    and all files of a source may have one time. Layers have whole seconds, so that what is built stays the same.
    """
    for path in folder.rglob("*"):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest()
            second = found.st_mtime_ns // 10**9 * 10**9
            os.utime(path, ns=(second, second + int.from_bytes(content) % 10**9))
