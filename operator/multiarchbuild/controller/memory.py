"""How much memory this process has, and may have, and what becomes of that which is free again."""

import ctypes
import os
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Of cgroup v2 and v1 (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files)."""
_UNLIMITED: Final = 2**60
"""What cgroup v1 says where there is no limit is about 2**63."""
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 64 * 1024
"""Bytes of a block that goes back to the kernel as soon as it is free."""


def resident_bytes() -> float:
    """Return the resident memory of this process in bytes, 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0.0
    return float(int(pages) * os.sysconf("SC_PAGE_SIZE"))


def limit_bytes(cgroup: Path = CGROUP) -> float:
    """Return the memory in bytes at which the container of this process is killed, infinite where there is no limit."""
    for name in _LIMITS:
        try:
            text = (cgroup / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return float(text) if text.isdigit() and int(text) < _UNLIMITED else inf
    return inf


def give_back_large_blocks() -> None:
    """Have large blocks mapped one by one, with glibc; other libraries are left as they are.

    By itself it raises the size from which on it does so to that of any block that was freed. Then manifests with
    inline files (up to 128 KiB, and several times as much while they are written) leave holes between what stays: of
    1,000 such builds a fifth of the memory. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
