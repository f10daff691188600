"""One command at a time on one instance."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, waiting: str) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` for the block; the kernel frees it however the process ends.

    The block may remove the file. Prints `waiting` where another process holds the lock, and waits for it.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(waiting, flush=True)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it before may have removed the file: then this lock keeps nobody out.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)
