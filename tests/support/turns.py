"""Who may disturb the cluster when: tests share it, and one that is marked as alone has it for itself.

Workers of pytest-xdist are processes, hence locks on files, which the kernel frees however a process ends.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Have a turn with the cluster for the block; `folder` is that of the whole run of the tests."""
    with (folder / "cluster.gate").open("w") as gate, (folder / "cluster.room").open("w") as room:
        # Who waits for the room holds the gate, so that those who share do not keep out who wants it alone.
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
