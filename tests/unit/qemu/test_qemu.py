"""Registering QEMU: what the kernel is told, whose handlers are touched, what a node is labelled."""

import shutil
import subprocess
from pathlib import Path

import pytest

from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.qemu.architectures import ARCHITECTURES, Architecture
from multiarchbuild.qemu.binfmt import Binfmt, line
from multiarchbuild.qemu.label import verified
from multiarchbuild.qemu.probe import ARGUMENTS, EXPECTED, failure
from multiarchbuild.qemu.register import keep
from tests.cluster.build import binfmt as reference

AMD64, RISCV64 = ARCHITECTURES["amd64"], ARCHITECTURES["riscv64"]


def test_every_architecture_that_can_be_built_can_be_emulated() -> None:
    assert set(ARCHITECTURES) == {Platform.parse(text).architecture for text in SUPPORTED}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda entry: entry.name)
def test_the_program_runs_as_what_it_claims_to_be(architecture: Architecture, tmp_path: Path) -> None:
    emulator = shutil.which(f"qemu-{architecture.emulator}-static") or shutil.which(f"qemu-{architecture.emulator}")
    if emulator is None and not architecture.native:
        pytest.skip(f"no QEMU for {architecture.name} here")
    program = tmp_path / "program"
    program.write_bytes(architecture.program())
    program.chmod(0o755)
    command = [program] if emulator is None else [emulator, program]
    assert subprocess.run([*command, *ARGUMENTS], check=False).returncode == EXPECTED
    assert subprocess.run([*command, *ARGUMENTS, "one more"], check=False).returncode == EXPECTED + 1


def test_a_program_that_does_not_run_fails_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    native = next(entry for entry in ARCHITECTURES.values() if entry.native)
    assert failure(native) == ""
    monkeypatch.setattr(Architecture, "program", lambda _: b"\x7fELF, but no program")
    assert failure(native).startswith("Exec format error: no handler")
    monkeypatch.setattr(Architecture, "program", lambda _: b"#!/bin/sh\necho cannot >&2; exit 3\n")
    assert failure(native) == "exit code 3 instead of exit code 43: cannot"


def test_the_kernel_is_told_what_it_is_told_for_arm64_by_others_too() -> None:
    told = line("name", ARCHITECTURES["arm64"], Path("/qemu")).decode()
    _, name, kind, offset, magic, mask, emulator, flags = told.split(":")
    assert (name, kind, offset, emulator) == ("name", "M", "", "/qemu")
    assert set(flags) == set("POCF")
    of_others = reference.registration("arm64", "name", Path("/qemu")).split(b":")
    assert [_bytes(magic), _bytes(mask)] == [_bytes(part.decode()) for part in of_others[4:6]]


def _bytes(escaped: str) -> bytes:
    return escaped.encode().decode("unicode_escape").encode("latin-1")


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda entry: entry.name)
def test_a_handler_takes_programs_of_its_architecture_only(architecture: Architecture) -> None:
    taken = {
        other.name
        for other in ARCHITECTURES.values()
        if all(
            byte & mask == magic & mask
            for byte, magic, mask in zip(other.program(), architecture.magic, architecture.mask, strict=False)
        )
    }
    assert taken == {architecture.name}
    shared_object = bytearray(architecture.program())
    shared_object[16 if architecture.order == "<" else 17] = 3
    pairs = zip(shared_object, architecture.magic, architecture.mask, strict=False)
    assert all(byte & mask == magic & mask for byte, magic, mask in pairs), "position-independent executables too"


def handlers(folder: Path, *names: str) -> Binfmt:
    """Return a folder that looks like binfmt_misc, with these handlers, as the pod `me` sees it."""
    for name in ("register", *names):
        (folder / name).write_text("enabled", encoding="ascii")
    return Binfmt.mounted(folder, "me")


def test_only_own_handlers_are_removed(tmp_path: Path) -> None:
    others = (
        "qemu-riscv64",
        "multiarchbuild-qemu-riscv64-other",
        "multiarchbuild-chart",
        "multiarchbuild-qemu-me-else",
        "python3.13",
    )
    binfmt = handlers(tmp_path, "multiarchbuild-qemu-riscv64-me", "multiarchbuild-qemu-s390x-me", *others)
    assert binfmt.remove() == ("multiarchbuild-qemu-riscv64-me", "multiarchbuild-qemu-s390x-me")
    assert {(tmp_path / name).read_text() for name in others} == {"enabled"}
    assert (tmp_path / "multiarchbuild-qemu-s390x-me").read_text() == "-1"


def test_native_architectures_are_left_alone(tmp_path: Path) -> None:
    native = next(entry for entry in ARCHITECTURES.values() if entry.native)
    assert keep(handlers(tmp_path), native, Path("/qemu")) == "native, nothing to do"
    assert (tmp_path / "register").read_text() == "enabled"


@pytest.mark.parametrize(
    ("existing", "runs", "registers"),
    [
        ([], False, True),
        ([], True, False),
        (["qemu-riscv64"], True, False),
        (["qemu-riscv64"], False, True),
        (["multiarchbuild-qemu-riscv64-other"], True, True),
        (["multiarchbuild-qemu-riscv64-me"], True, False),
        (["multiarchbuild-qemu-s390x-me", "multiarchbuild-qemu-riscv64x-other"], True, False),
    ],
    ids=[
        "nothing there",
        "somebody's handler without a name that we know",
        "the node's own works",
        "the node's own is not to be used from containers",
        "the pod that is replaced takes its own along",
        "ours is there",
        "of other architectures",
    ],
)
def test_when_qemu_is_registered(
    *, existing: list[str], runs: bool, registers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiarchbuild.qemu.register.failure", lambda _: "" if runs else "Exec format error")
    binfmt = handlers(tmp_path, *existing)
    keep(binfmt, RISCV64, Path("/emulators"))
    told = (tmp_path / "register").read_text()
    assert told.startswith(":multiarchbuild-qemu-riscv64-me:M::" if registers else "enabled")
    assert (":/emulators/qemu-riscv64:" in told) is registers


def test_a_label_is_set_where_the_program_runs_and_removed_where_not() -> None:
    labels, failures = verified([AMD64, RISCV64], lambda entry: "" if entry is AMD64 else "it does not")
    assert labels == {"multiarch.build/qemu-amd64": "true", "multiarch.build/qemu-riscv64": None}
    assert failures == {"riscv64": "it does not"}
