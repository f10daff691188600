"""Control groups of an instance, for cgroup v1, the hybrid layout and v2."""

import time
from pathlib import Path

from tests.cluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
# hugetlb: kubelet refuses a cgroup without it where the kernel has it.
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
# The cluster's own programs must stay responsive while builds use every core.
SYSTEM_CPU_SHARES = 4096


def unified() -> bool:
    """Whether the host has cgroup v2 only."""
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> tuple[Path, ...]:
    """Returns the mounted cgroup trees that processes are put into."""
    if unified():
        return (ROOT,)
    return tuple(
        sorted(
            path
            for path in ROOT.iterdir()
            if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
        )
    )


def create(instance: str, machine: str) -> tuple[Path, ...]:
    """Makes `/INSTANCE/MACHINE/system` in every tree and returns those groups.

    Kubelet puts its pods beside `system`, in `/INSTANCE/MACHINE/kubepods`.
    """
    groups = []
    for tree in hierarchies():
        group = tree
        for part in (instance, machine, "system"):
            if unified():
                _enable_controllers(group)
            group /= part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)
        for name, value in (("cpu.shares", SYSTEM_CPU_SHARES), ("cpu.weight", 1000)):
            if (group / name).exists():
                (group / name).write_text(str(value))
        groups.append(group)
    return tuple(groups)


def peak_memory(instance: str) -> int:
    """Returns the most memory in bytes, page cache included, that the instance ever used; 0 if not known."""
    for path in (ROOT / "memory" / instance / "memory.max_usage_in_bytes", ROOT / instance / "memory.peak"):
        if path.exists():
            return int(path.read_text())
    return 0


def processes(instance: str, machine: str = "") -> frozenset[int]:
    """Returns the pids of all processes of a machine, or of the whole instance."""
    tops = (tree / instance / machine for tree in hierarchies())
    groups = (group for top in tops if top.is_dir() for group in _walk(top))
    return frozenset(int(pid) for group in groups for pid in _pids(group))


def _pids(group: Path) -> list[str]:
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError:
        return []  # a container that ends takes its group along


def remove(instance: str, machine: str = "", *, timeout: float = 120.0) -> None:
    """Removes the groups of a machine, or of the whole instance; their processes must have been killed.

    Raises:
        ClusterError: where a group still has processes after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    for tree in (*hierarchies(), ROOT / "unified"):
        top = tree / instance / machine
        while top.is_dir():
            try:
                for group in sorted(_walk(top), key=lambda path: len(path.parts), reverse=True):
                    group.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if time.monotonic() > deadline:
                    pids = " ".join(_pids(Path(error.filename)))
                    raise ClusterError(
                        f"cgroup {error.filename} cannot be removed, it has processes {pids or '(none)'}: {error}"
                    ) from error
                time.sleep(0.05)


def _walk(top: Path) -> list[Path]:
    found = [top]
    for child in top.iterdir():
        if child.is_dir():
            found += _walk(child)
    return found


def _enable_controllers(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    for controller in V2_CONTROLLERS:
        if controller in available:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(group: Path) -> None:
    # A new v1 cpuset is empty, and no process can enter an empty one.
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = group / name
        if own.exists() and not unified() and not own.read_text().strip():
            own.write_text((group.parent / name).read_text())
