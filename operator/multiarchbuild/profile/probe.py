"""The proof: what a rootless builder begins with is done in a container that has the profile."""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_SECONDS: Final = 60.0
"""A node whose builds use all of it takes its time, and must not lose its label for that. The pod has more to end."""


def failure() -> str:
    """Return why a rootless builder would not start on this node; empty when it would."""
    command = [sys.executable, "-m", "multiarchbuild.profile.probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (subprocess.TimeoutExpired, OSError) as error:
        return f"it could not be tried: {error}"
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"exit code {done.returncode}"


def attempt() -> str:
    """Make a user and a mount namespace and mount something there; return what is refused, or nothing.

    For a process that ends then: it stays in these namespaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    with tempfile.TemporaryDirectory() as folder:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
            return _refused("no user namespace can be made (user.max_user_namespaces, AppArmor)")
        try:
            for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                Path(f"/proc/self/{name}").write_text(line, encoding="ascii")
        except OSError as error:
            return f"ids of a user namespace can't be mapped: {error}"
        if libc.mount(b"none", folder.encode(), b"tmpfs", 0, None):
            return _refused("nothing can be mounted in a user namespace (AppArmor, SELinux)")
        libc.umount2(folder.encode(), 0)
    return ""


def _refused(what: str) -> str:
    return f"{what}: {os.strerror(ctypes.get_errno())}"


if __name__ == "__main__":
    sys.exit(attempt() or 0)
