"""The kernel's binfmt_misc. Source: Documentation/admin-guide/binfmt-misc.rst.

Nobody's handlers are touched but those of the same owner, all named multiarchbuild-qemu-<architecture>-<owner>.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from .architectures import Architecture

FLAGS: Final = "POCF"
"""P: QEMU learns argv[0] as the caller gave it. O and C: the program is opened for it, with the program's own
credentials (set-uid bits and file capabilities count). F: QEMU is opened at registration, so that it is found from
every container."""
_PREFIX: Final = "multiarchbuild-qemu-"


class BinfmtError(Exception):
    """The kernel did not do what was asked; the message says what, and the remedy."""


@dataclass(frozen=True, slots=True)
class Binfmt:
    """A mounted binfmt_misc and the handlers in it that belong to `owner`."""

    folder: Path
    owner: str

    @classmethod
    def mounted(cls, folder: Path, owner: str) -> Self:
        """Mount it on `folder`, unless it is there already.

        Raises:
            BinfmtError: There is no binfmt_misc, or this process may not mount.
        """
        if not (folder / "register").exists():
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mount(b"binfmt_misc", os.fsencode(folder), b"binfmt_misc", 0, None):
                why = os.strerror(ctypes.get_errno())
                raise BinfmtError(f"can't mount binfmt_misc: {why}; load it on the node: modprobe binfmt_misc")
        return cls(folder, owner)

    def registered(self, architecture: Architecture) -> bool:
        """Return whether the owner has a handler."""
        return self._path(architecture).exists()

    def registered_by_others(self, architecture: Architecture) -> bool:
        """Return whether another owner has a handler, which goes with its owner."""
        own = self._path(architecture).name
        return any(path.name != own for path in self.folder.glob(f"{_PREFIX}{architecture.name}-*"))

    def register(self, architecture: Architecture, emulator: Path) -> None:
        """Register the emulator.

        Raises:
            BinfmtError: The kernel refused.
        """
        name = self._path(architecture).name
        try:
            (self.folder / "register").write_bytes(line(name, architecture, emulator))
        except OSError as error:
            raise BinfmtError(f"the kernel refused to register {emulator}: {error.strerror}") from error

    def remove(self) -> tuple[str, ...]:
        """Remove all handlers of the owner and return their names."""
        own = sorted(self.folder.glob(f"{_PREFIX}*-{self.owner}"))
        for path in own:
            path.write_text("-1", encoding="ascii")
        return tuple(path.name for path in own)

    def _path(self, architecture: Architecture) -> Path:
        return self.folder / f"{_PREFIX}{architecture.name}-{self.owner}"


def line(name: str, architecture: Architecture, emulator: Path) -> bytes:
    """Return what registers `emulator` under `name`, as the kernel reads it."""
    magic, mask = (_escaped(value) for value in (architecture.magic, architecture.mask))
    return f":{name}:M::{magic}:{mask}:{emulator}:{FLAGS}".encode()


def _escaped(value: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in value)
