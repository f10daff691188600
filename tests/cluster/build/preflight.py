"""Whether this machine can run the local cluster at all, answered before anything is built."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import binfmt, packages
from tests.cluster.build.errors import BuildError

COLD_BYTES = 15 * 2**30
"""Room for Go's module and build caches, the programs and the images."""
WARM_BYTES = 3 * 2**30
"""Room for the images that the nodes unpack and the tests build."""
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Machine:
    """The facts that decide.

    ``filesystems`` are the lines of /proc/filesystems, ``controllers`` the names of the enabled cgroup controllers of
    either version, ``free_bytes`` what the cache's file system has left, ``needed_bytes`` what will be used of it.
    """

    system: str
    machine: str
    user_id: int
    filesystems: str
    binfmt_misc: bool
    controllers: frozenset[str]
    free_bytes: int
    needed_bytes: int


def problems(machine: Machine) -> list[str]:
    """Return what stands in the way, one sentence each with what to do; empty when nothing does."""
    if machine.system != "Linux":
        return [f"The local cluster needs Linux; this is {machine.system}. Point KUBECONFIG at a cluster instead."]
    found = []
    if machine.machine != "x86_64":
        found.append(
            f"The local cluster is made for x86_64 machines; this is {machine.machine}. "
            "Point KUBECONFIG at a cluster instead."
        )
    if machine.user_id != 0:
        found.append("The local cluster makes namespaces, mounts and cgroups: run as root.")
    if "overlay" not in machine.filesystems.split():
        found.append("The kernel has no overlayfs, which containers' file systems need: load the module overlay.")
    if not machine.binfmt_misc:
        found.append("The kernel has no binfmt_misc, through which QEMU runs arm64: load the module binfmt_misc.")
    absent = [name for name in _CONTROLLERS if name not in machine.controllers]
    if absent:
        found.append(
            f"Cgroup controllers that kubelet needs are off: {', '.join(absent)}. "
            "Enable them on the kernel's command line and mount /sys/fs/cgroup."
        )
    if machine.free_bytes < machine.needed_bytes:
        found.append(
            f"The cache's file system has {machine.free_bytes / 2**30:.1f} GiB left and "
            f"{machine.needed_bytes / 2**30:.0f} GiB are needed: free some, or set MAB_CACHE to a directory elsewhere."
        )
    return found


def inspect(cache: Path) -> Machine:
    """Return the facts of this machine; a cache that holds images already needs less room."""
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    needed = WARM_BYTES if (cache / "images").exists() else COLD_BYTES
    return Machine(
        system=platform.system(),
        machine=platform.machine(),
        user_id=os.geteuid(),
        filesystems=_read(Path("/proc/filesystems")),
        binfmt_misc=binfmt.MOUNT_POINT.is_dir() or "binfmt_misc" in _read(Path("/proc/filesystems")).split(),
        controllers=frozenset(
            _controllers(_read(Path("/proc/cgroups")), _read(Path("/sys/fs/cgroup/cgroup.controllers")))
        ),
        free_bytes=shutil.disk_usage(existing).free,
        needed_bytes=needed,
    )


def preflight(cache: Path) -> None:
    """Refuse a machine that cannot run the cluster, then install what Debian packages the builds need.

    Raises BuildError with every problem, one a line.
    """
    found = problems(inspect(cache))
    if found:
        raise BuildError("This machine cannot run the local cluster:\n" + "\n".join(f"- {text}" for text in found))
    packages.ensure(packages.BUILD_PACKAGES)


def _controllers(version_1: str, version_2: str) -> set[str]:
    """Return the enabled controllers in /proc/cgroups (name, hierarchy, cgroups, enabled) and in cgroup.controllers."""
    rows = [line.split() for line in version_1.splitlines() if not line.startswith("#")]
    return {row[0] for row in rows if len(row) == 4 and row[3] == "1"} | set(version_2.split())


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
