"""What instances share on the host: two sysctls, /etc/hosts, and the kernel's handlers of foreign programs.

The first instance notes how things were, the last one puts them back.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.build import binfmt
from tests.cluster.files import write_atomic
from tests.cluster.layout import Layout
from tests.cluster.locks import locked

# On a tmpfs: after a reboot nothing of it holds any more.
SHARED = Path("/run/multiarchbuild")
HOSTS = Path("/etc/hosts")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_LEAST = 1024
"""A node takes a dozen: with the default of 128, further nodes die of too many open files."""
APP_ARMOR = Path("/sys/module/apparmor/parameters/enabled")


def has_app_armor() -> bool:
    """Returns whether the kernel, which all nodes share, has AppArmor and uses it."""
    return APP_ARMOR.exists() and APP_ARMOR.read_text().startswith("Y")


def acquire(layout: Layout) -> None:
    """Makes the host ready for the instance; idempotent.

    Raises:
        BuildError: where the kernel refuses the arm64 handler.
    """
    with locked(SHARED / "lock", waiting="waiting for another instance to set up the host"):
        before = SHARED / "before.json"
        if not before.exists():
            mounted = (binfmt.MOUNT_POINT / "register").exists()
            noted = {
                "ip_forward": IP_FORWARD.read_text().strip(),
                "inotify": INOTIFY.read_text().strip(),
                "binfmt_mounted": mounted,
            }
            write_atomic(before, json.dumps(noted).encode())
        _user(layout).parent.mkdir(exist_ok=True)
        _user(layout).touch()
        IP_FORWARD.write_text("1")
        if int(INOTIFY.read_text()) < INOTIFY_LEAST:
            INOTIFY.write_text(str(INOTIFY_LEAST))
        if not (binfmt.MOUNT_POINT / _handler(layout)).exists():
            binfmt.register("arm64", _handler(layout))
        if layout.hosts_line not in HOSTS.read_text().splitlines():
            _write_hosts([*_other_hosts(layout), layout.hosts_line])


def release(layout: Layout) -> None:
    """Undoes `acquire`, whatever part of it was done."""
    with locked(SHARED / "lock", waiting="waiting for another instance to set up the host"):
        binfmt.undo(binfmt.Change(mounted=False, entry=_handler(layout)))
        others = _other_hosts(layout)
        if others != HOSTS.read_text().splitlines():
            _write_hosts(others)
        _user(layout).unlink(missing_ok=True)
        if _user(layout).parent.is_dir() and any(_user(layout).parent.iterdir()):
            return
        before = SHARED / "before.json"
        if before.exists():
            noted = json.loads(before.read_bytes())
            IP_FORWARD.write_text(noted["ip_forward"])
            INOTIFY.write_text(noted.get("inotify") or INOTIFY.read_text())
            binfmt.undo(binfmt.Change(mounted=not noted["binfmt_mounted"], entry=None))
        shutil.rmtree(SHARED)


def _user(layout: Layout) -> Path:
    return SHARED / "users" / layout.instance


def _handler(layout: Layout) -> str:
    return f"multiarchbuild-{layout.instance}"


def _other_hosts(layout: Layout) -> list[str]:
    mark = layout.hosts_line.partition("#")[2]
    return [line for line in HOSTS.read_text().splitlines() if line.partition("#")[2] != mark]


def _write_hosts(lines: Sequence[str]) -> None:
    # In place: in a container /etc/hosts is a mount point and cannot be replaced.
    HOSTS.write_text("".join(f"{line}\n" for line in lines))
