"""A cache directory whose entries are complete or absent, with one writer at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEY_HEX_DIGITS = 16


def content_key(parts: Iterable[bytes | str]) -> str:
    """Return 16 hex digits that depend on every part and on where one part ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:_KEY_HEX_DIGITS]


@contextmanager
def locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file, made if absent; the kernel frees it when the process ends in any way.

    ``waiting`` is called once, with a line for a person, when another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            waiting(f"waiting for another build (process {holder}) that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def writing(cache: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Be the only one that adds to the cache, what an interrupted writer left half done being removed first.

    ``waiting`` is called as by ``locked``.
    """
    with locked(cache / "lock", waiting):
        shutil.rmtree(staging_root(cache), ignore_errors=True)
        yield


@contextmanager
def staging(cache: Path) -> Iterator[Path]:
    """Make a directory on the cache's file system for work in progress; it is removed when the block ends."""
    parent = staging_root(cache)
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def staging_root(cache: Path) -> Path:
    """Return where work in progress lives."""
    return cache / "staging"


def publish(temporary: Path, final: Path) -> None:
    """Move a complete file or directory to its place so that a crash leaves either all of it or none.

    Both must be on one file system. A directory that is already there has the same content key and is kept.
    """
    if temporary.is_dir():
        for directory, _, files in os.walk(temporary):
            for name in files:
                _sync(Path(directory, name))
            _sync(Path(directory))
    else:
        _sync(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        shutil.rmtree(temporary)
        return
    temporary.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
