"""The part that writes: it keeps the profile where the kubelet looks for it."""

import os
import platform
import threading
from pathlib import Path

from multiarchbuild.api.nodes import PROFILE_FILE
from multiarchbuild.nodes.log import say

from .seccomp import text


def lay(folder: Path, every: float, stop: threading.Event) -> int:
    """Keep the profile in the kubelet's `folder` until `stop`; return the exit code.

    It stays there at the end: a builder that runs may be restarted, and this pod may be one that is replaced.
    """
    wanted = text(platform.machine())
    while not stop.is_set():
        try:
            if write(folder / PROFILE_FILE, wanted):
                say(f"wrote {PROFILE_FILE}")
        except OSError as error:
            say(f"error: {PROFILE_FILE} was not written: {error}")
        stop.wait(every)
    return 0


def write(path: Path, wanted: str) -> bool:
    """Write a file at once as a whole, unless it is there; return whether it was not. Raises OSError."""
    try:
        if path.read_text(encoding="utf-8") == wanted:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(wanted, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)
    return True
