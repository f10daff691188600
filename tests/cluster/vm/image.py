"""The guest's disk and kernel: Debian's packages, kept in the cache like all else that is built."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import Progress, packages
from tests.cluster.build.cache import content_key, publish, staging, writing
from tests.cluster.build.commands import Commands
from tests.cluster.build.debian import Suite, bootstrap, host_mirror

SUITE = Suite.TRIXIE
PACKAGES = (
    "apparmor",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "kmod",
    "linux-image-amd64",
    "nftables",
    "python3",
    "runc",
    "util-linux",
)
"""What a node's machine uses on this machine, and what a kernel of its own needs besides."""
HOST_PACKAGES = (*packages.BUILD_PACKAGES, "e2fsprogs")
SHARE = "state"
"""The name by which the guest mounts the folder with its first program."""
INIT = f"""\
#!/bin/sh
modprobe -a virtio_net 9pnet_virtio
mkdir -p /{SHARE}
mount -t 9p -o trans=virtio,version=9p2000.L {SHARE} /{SHARE}
exec /bin/sh /{SHARE}/boot
"""
_INIT_PATH = "sbin/guest-init"
KERNEL_ARGUMENTS = f"root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1 init=/{_INIT_PATH}"
_DISK = "12G"
_FORMAT = "1"


@dataclass(frozen=True)
class Image:
    """Files in the cache, not to be written to."""

    disk: Path
    kernel: Path
    initrd: Path


def ensure(cache: Path, progress: Progress | None = None) -> Image:
    """Return the image, made if the cache lacks it. Raises BuildError when it cannot be made."""
    final = cache / "vm" / content_key([_FORMAT, SUITE, *PACKAGES, INIT, _DISK])
    if not final.exists():
        packages.ensure(HOST_PACKAGES)
        progress = progress or Progress()
        with writing(cache, progress.note), progress.shown(), progress.task("virtual machine"):
            _make(cache, final)
    return Image(final / "disk.raw", final / "vmlinuz", final / "initrd.img")


def _make(cache: Path, final: Path) -> None:
    commands = Commands(cache / "logs")
    with staging(cache) as work:
        tar, root, result = work / "system.tar", work / "root", work / "result"
        root.mkdir()
        result.mkdir()
        bootstrap(tar, SUITE, "amd64", host_mirror(), commands, native=True, include=PACKAGES)
        commands.run("vm", ["tar", "--extract", "--numeric-owner", "--file", tar, "--directory", root])
        for name in ("vmlinuz", "initrd.img"):
            # Debian's links to the kernel that is installed.
            (root / name).resolve().rename(result / name)
        init = root / _INIT_PATH
        init.write_text(INIT)
        init.chmod(0o755)
        system = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(result / "disk.raw"), _DISK)
        commands.run("vm", system)
        publish(result, final)
