"""The kernel's binfmt_misc: letting a foreign program run here through QEMU's user mode emulation.

Source: Documentation/admin-guide/binfmt-misc.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster.build.errors import BuildError

MOUNT_POINT = Path("/proc/sys/fs/binfmt_misc")
# P: the emulator learns argv[0] as the caller gave it. O and C: the program is opened for it, with the program's own
# credentials (set-uid bits and file capabilities count). F: the emulator is opened at registration, so it is found from
# any root file system.
FLAGS = "POCF"
_CONTROL_FILES = {"register", "status"}
_MAGIC = {"arm64": rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"}
_MASK = {"arm64": rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"}
# Debian's QEMU takes the P flag's extra argument only under the first name.
_INTERPRETERS = {"arm64": ("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "/usr/bin/qemu-aarch64-static")}


@dataclass(frozen=True)
class Change:
    """What a registration changed, so that exactly this can be undone, by another process if need be."""

    mounted: bool
    entry: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the change as plain data for a JSON file."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Change:
        """Return the change that ``as_dict`` gave."""
        return Change(mounted=bool(data["mounted"]), entry=data["entry"])


def interpreter(arch: str) -> Path:
    """Return the emulator of an architecture. Raises BuildError when it is not installed."""
    for candidate in _INTERPRETERS[arch]:
        if Path(candidate).exists():
            return Path(candidate)
    raise BuildError(f"No emulator for {arch}: install the Debian package qemu-user-static.")


def registration(arch: str, entry: str, emulator: Path) -> bytes:
    """Return the line that registers an emulator under a name, as the kernel's ``register`` file reads it."""
    return b":%s:M::%s:%s:%s:%s" % (
        entry.encode(),
        _MAGIC[arch],
        _MASK[arch],
        os.fsencode(emulator),
        FLAGS.encode(),
    )


def handles(description: str, arch: str) -> bool:
    """Return whether a registered entry, as the kernel describes it, runs an architecture in any root file system."""
    lines = description.splitlines()
    fields = {words[0].rstrip(":"): words[1:] for words in map(str.split, lines) if words}
    # In the register file the magic is written with \x escapes; the kernel shows it as plain hex digits.
    magic = _MAGIC[arch].decode().replace("ELF", r"\x45\x4c\x46").replace(r"\x", "")
    return lines[:1] == ["enabled"] and fields.get("magic") == [magic] and "F" in "".join(fields.get("flags", []))


def status(arch: str) -> bool:
    """Return whether programs of an architecture run here now, in any root file system."""
    return any(handles(path.read_text(), arch) for path in _entries())


def register(arch: str, entry: str) -> Change:
    """Register an emulator under a name, mounting binfmt_misc when it is not mounted.

    An entry of the same name, left by an interrupted run, is replaced. Raises BuildError when the kernel refuses.
    """
    emulator = interpreter(arch)
    mounted = False
    try:
        if not _is_mounted():
            if not MOUNT_POINT.is_dir():
                subprocess.run(["modprobe", "-q", "binfmt_misc"], check=False)
            subprocess.run(
                ["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT], check=True, capture_output=True, text=True
            )
            mounted = True
        _remove(entry)
        (MOUNT_POINT / "register").write_bytes(registration(arch, entry, emulator))
    except subprocess.CalledProcessError as error:
        raise BuildError(f"Cannot mount binfmt_misc on {MOUNT_POINT}: {error.stderr.strip()}") from error
    except OSError as error:
        undo(Change(mounted=mounted, entry=None))
        raise BuildError(f"The kernel refused to register {emulator} for {arch}: {error}") from error
    return Change(mounted=mounted, entry=entry)


def undo(change: Change) -> None:
    """Take back a registration; binfmt_misc stays mounted while anyone else's entry is in it."""
    if not _is_mounted():
        return
    if change.entry is not None:
        _remove(change.entry)
    if change.mounted and not _entries():
        subprocess.run(["umount", MOUNT_POINT], check=True)


@contextmanager
def registered(arch: str, entry: str) -> Iterator[None]:
    """Have an architecture's programs run here while the block runs."""
    change = register(arch, entry)
    try:
        yield
    finally:
        undo(change)


def command_with(arch: str, entry: str, argv: list[str]) -> list[str]:
    """Return a command that runs another one with an architecture registered, and leaves nothing behind.

    It does so in a mount namespace of its own, so that a mount it had to make goes away even when it is killed.
    """
    return [
        "unshare",
        "--mount",
        "--propagation=private",
        sys.executable,
        "-m",
        "tests.cluster.build.binfmt",
        arch,
        entry,
        *argv,
    ]


def _is_mounted() -> bool:
    return (MOUNT_POINT / "register").exists()


def _entries() -> list[Path]:
    return [path for path in MOUNT_POINT.iterdir() if path.name not in _CONTROL_FILES] if _is_mounted() else []


def _remove(entry: str) -> None:
    path = MOUNT_POINT / entry
    if path.exists():
        path.write_text("-1")


if __name__ == "__main__":
    with registered(sys.argv[1], sys.argv[2]):
        raise SystemExit(subprocess.run(sys.argv[3:], check=False).returncode)
