"""Waits until the kubelet has written the files of a volume anew."""

import time
from pathlib import Path
from typing import Final, Self

from inotify_simple import INotify, flags

_LONGEST: Final = 1.0
"""Seconds after which files are looked at in any case: an event that is lost must not be waited for."""
_POLL: Final = 0.05
"""Seconds between two looks where the kernel tells nothing, as where its user has too many that listen."""
_WRITTEN: Final = flags.MOVED_TO | flags.CLOSE_WRITE
"""The kubelet writes into a new folder and renames a link to it."""


class Changes:
    """Changes of the files in one folder, from when this is made. To be closed, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._inotify: INotify | None = None
        try:
            self._inotify = INotify()
            self._inotify.add_watch(folder, _WRITTEN)
        except OSError:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def wait(self, seconds: float) -> None:
        """Return once something may have changed, and after `seconds` at the latest."""
        if self._inotify is None:
            time.sleep(max(0.0, min(seconds, _POLL)))
        else:
            self._inotify.read(timeout=int(1000 * max(0.0, min(seconds, _LONGEST))) + 1)
