"""What the kernel and QEMU have to know of an architecture, and a program of it.

The program is the least that proves something: it exits with 40 and the number of its arguments, so that the right exit
code can only come from its own instructions, with its arguments where they belong. That is wrong, for one, where the
flag P is set and QEMU does not know of it.

Sources: the ELF specification and its supplements for each processor; Documentation/admin-guide/binfmt-misc.rst and the
system call tables of the Linux kernel.
"""

import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

_EXECUTABLE: Final = 2
"""e_type of an executable. A shared object, which position-independent executables are, has 3."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture, named as GOARCH and OCI name it."""

    name: str
    emulator: str
    """As QEMU names it: qemu-<emulator>."""
    machines: tuple[str, ...]
    """What uname calls processors that run it natively."""
    bits: Literal[32, 64]
    order: Literal["<", ">"]
    """Byte order, as `struct` writes it."""
    machine: int
    """e_machine."""
    flags: int
    """e_flags."""
    code: bytes
    """exit_group(40 + argc)."""

    @property
    def native(self) -> bool:
        """Whether this machine runs it without help."""
        return platform.machine() in self.machines

    @property
    def magic(self) -> bytes:
        """The start of its executables, up to e_machine."""
        ident = struct.pack("4sBBB9x", b"\x7fELF", 1 if self.bits == 32 else 2, 1 if self.order == "<" else 2, 1)  # noqa: PLR2004
        return ident + struct.pack(f"{self.order}HH", _EXECUTABLE, self.machine)

    @property
    def mask(self) -> bytes:
        """Which bits of the magic count: not the ABI's name, nor what tells executables from shared objects."""
        ident = b"\xff" * 7 + b"\x00" + b"\xff" * 8
        return ident + struct.pack(f"{self.order}HH", 0xFFFE, 0xFFFF)

    def program(self) -> bytes:
        """Return a static executable."""
        base = 0x10000
        word = "I" if self.bits == 32 else "Q"  # noqa: PLR2004
        header, segment = (52, 32) if self.bits == 32 else (64, 56)  # noqa: PLR2004
        entry, size = base + header + segment, header + segment + len(self.code)
        elf = self.magic[:16] + struct.pack(
            f"{self.order}HHI3{word}I6H",
            *(_EXECUTABLE, self.machine, 1, entry, header, 0, self.flags),
            *(header, segment, 1, 0, 0, 0),
        )
        load, read_execute, page = 1, 5, 0x10000
        if self.bits == 32:  # noqa: PLR2004
            fields = (load, 0, base, base, size, size, read_execute, page)
        else:
            fields = (load, read_execute, 0, base, base, size, size, page)
        return elf + struct.pack(f"{self.order}{'8I' if self.bits == 32 else '2I6Q'}", *fields) + self.code  # noqa: PLR2004


def _words(order: str, *instructions: int) -> bytes:
    return struct.pack(f"{order}{len(instructions)}I", *instructions)


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    entry.name: entry
    for entry in (
        # mov ebx, [esp] · add ebx, 40 · mov eax, 252 · int 0x80
        Architecture(
            *("386", "i386", ("i386", "i486", "i586", "i686", "x86_64"), 32, "<", 3, 0),
            bytes.fromhex("8b1c24 83c328 b8fc000000 cd80"),
        ),
        # mov edi, [rsp] · add edi, 40 · mov eax, 231 · syscall
        Architecture(
            *("amd64", "x86_64", ("x86_64",), 64, "<", 62, 0),
            bytes.fromhex("8b3c24 83c728 b8e7000000 0f05"),
        ),
        # ldr r0, [sp] · add r0, r0, #40 · mov r7, #248 · svc #0
        Architecture(
            *("arm", "arm", ("armv5l", "armv6l", "armv7l", "armv8l"), 32, "<", 40, 0x05000000),
            _words("<", 0xE59D0000, 0xE2800028, 0xE3A070F8, 0xEF000000),
        ),
        # ldr x0, [sp] · add x0, x0, #40 · mov x8, #94 · svc #0
        Architecture(
            *("arm64", "aarch64", ("aarch64",), 64, "<", 183, 0),
            _words("<", 0xF94003E0, 0x9100A000, 0xD2800BC8, 0xD4000001),
        ),
        # ld.d $a0, $sp, 0 · addi.d $a0, $a0, 40 · addi.w $a7, $zero, 94 · syscall 0
        Architecture(
            *("loong64", "loongarch64", ("loongarch64",), 64, "<", 258, 0x43),
            _words("<", 0x28C00064, 0x02C0A084, 0x0281780B, 0x002B0000),
        ),
        # ld r3, 0(r1) · addi r3, r3, 40 · li r0, 234 · sc
        Architecture(
            *("ppc64le", "ppc64le", ("ppc64le",), 64, "<", 21, 2),
            _words("<", 0xE8610000, 0x38630028, 0x380000EA, 0x44000002),
        ),
        # ld a0, 0(sp) · addi a0, a0, 40 · li a7, 94 · ecall
        Architecture(
            *("riscv64", "riscv64", ("riscv64",), 64, "<", 243, 0),
            _words("<", 0x00013503, 0x02850513, 0x05E00893, 0x00000073),
        ),
        # lg %r2, 0(%r15) · aghi %r2, 40 · svc 248
        Architecture(
            *("s390x", "s390x", ("s390x",), 64, ">", 22, 0),
            bytes.fromhex("e320f0000004 a72b0028 0af8"),
        ),
    )
}
"""By name, in alphabetical order."""
