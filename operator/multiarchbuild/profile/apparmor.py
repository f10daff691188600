"""The AppArmor profile of rootless builders, and what a process can know of AppArmor on its node.

Source: https://gitlab.com/apparmor/apparmor/-/wikis/AppArmor_Core_Policy_Reference
"""

from collections.abc import Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Final

from multiarchbuild.api.nodes import APP_ARMOR_PROFILE

ENABLED: Final = Path("/sys/module/apparmor/parameters/enabled")
LOADED: Final = Path("/sys/kernel/security/apparmor/profiles")
_CURRENT: Final = (Path("/proc/self/attr/apparmor/current"), Path("/proc/self/attr/current"))
"""Of a kernel with several security modules that label processes, and of one before Linux 5.1."""


class Use(StrEnum):
    """Where the profile is used, as a container that labels its node is told."""

    HERE = "here"
    """In this container: it verifies both profiles together."""
    ELSEWHERE = "elsewhere"
    """In another DaemonSet, on the nodes that this one labels as having AppArmor."""
    NOWHERE = "nowhere"
    """In no DaemonSet: a node that is labelled as having the profile has the label of one that was."""


def text() -> str:
    """Return the profile."""
    return files(__package__).joinpath("apparmor.profile").read_text(encoding="ascii").replace("@@", APP_ARMOR_PROFILE)


def is_enabled(path: Path = ENABLED) -> bool:
    """Return whether the kernel has AppArmor, and uses it."""
    try:
        return path.read_text(encoding="ascii").startswith("Y")
    except OSError:
        return False


def current(paths: Sequence[Path] = _CURRENT) -> str:
    """Return the profile of this process and its mode, as the kernel writes them; empty where it has no AppArmor."""
    for path in paths:
        try:
            return path.read_text(encoding="utf-8").strip("\n\0")
        except OSError:
            continue
    return ""


def is_confined(profile: str) -> bool:
    """Return whether what `current` has returned is a profile that the runtime gave, or that was inherited from it.

    A runtime that uses no AppArmor starts containers with its own profile, which Debian and Ubuntu have for runc, and
    which only names it: `runc (unconfined)`.
    """
    return bool(profile) and profile != "unconfined" and not profile.endswith(" (unconfined)")


def not_confined(paths: Sequence[Path] = _CURRENT) -> str:
    """Return why this process does not have the profile; empty where it has."""
    found, wanted = current(paths), f"{APP_ARMOR_PROFILE} (enforce)"
    if found == wanted:
        return ""
    return f"the runtime started this container with {found or 'no AppArmor profile'}, and not with {wanted}"
