"""The part that loads: it keeps the AppArmor profile in the node's kernel."""

import subprocess
import threading
from typing import Final

from multiarchbuild.api.nodes import APP_ARMOR_PROFILE
from multiarchbuild.nodes.log import say

from .apparmor import LOADED, text

_PARSER: Final = ("apparmor_parser", "--replace", "--skip-cache", "--quiet")
"""It compiles for the kernel that it runs on, and writes to securityfs."""
_SECONDS: Final = 60.0


def load(every: float, stop: threading.Event) -> int:
    """Keep the profile loaded until `stop`; return the exit code.

    It stays at the end: a kernel that loses a profile leaves what runs with it unconfined.
    """
    said = ""
    while not stop.is_set():
        wrong = _failure()
        state = f"error: {APP_ARMOR_PROFILE} was not loaded: {wrong}" if wrong else f"{APP_ARMOR_PROFILE} is loaded"
        if state != said:
            said = state
            say(state)
        stop.wait(every)
    return 0


def is_loaded(profiles: str) -> bool:
    """Return whether the kernel's list of profiles has ours, and enforces it."""
    return f"{APP_ARMOR_PROFILE} (enforce)" in profiles.splitlines()


def _failure() -> str:
    """Load the profile unless the kernel has it; return why that failed, or nothing."""
    try:
        if is_loaded(LOADED.read_text(encoding="utf-8")):
            return ""
        done = subprocess.run(  # noqa: S603 - nothing of it is foreign
            _PARSER, input=text(), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"exit code {done.returncode}"
