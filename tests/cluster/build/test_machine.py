"""What is asked of the machine, and what is said when it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.build import binfmt, gotoolchain, packages, programs
from tests.cluster.build.errors import BuildError
from tests.cluster.build.preflight import COLD_BYTES, Machine, problems

GOOD = Machine(
    system="Linux",
    machine="x86_64",
    user_id=0,
    filesystems="nodev\tproc\nnodev\toverlay\n\text4\n",
    binfmt_misc=True,
    controllers=frozenset({"cpu", "memory", "pids", "cpuset"}),
    free_bytes=COLD_BYTES,
    needed_bytes=COLD_BYTES,
)


def test_a_good_machine_has_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "Darwin"}, "needs Linux; this is Darwin"),
        ({"machine": "riscv64"}, "this is riscv64"),
        ({"user_id": 1000}, "run as root"),
        ({"filesystems": "nodev\tproc\n"}, "load the module overlay"),
        ({"binfmt_misc": False}, "load the module binfmt_misc"),
        ({"controllers": frozenset({"cpu"})}, "memory, pids"),
        ({"free_bytes": 2**30}, "has 1.0 GiB left and 15 GiB are needed"),
    ],
)
def test_each_obstacle_is_named_with_what_to_do(change: dict[str, Any], said: str) -> None:
    found = problems(replace(GOOD, **change))
    assert len(found) == 1
    assert said in found[0]


def test_all_obstacles_are_named_at_once() -> None:
    assert len(problems(replace(GOOD, user_id=1, binfmt_misc=False, free_bytes=0))) == 3


def test_missing_packages_are_named_in_one_error_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(BuildError, match="apt-get install no-such-package-a no-such-package-b"):
        packages.ensure(["no-such-package-b", "no-such-package-a", "dpkg"])


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26, 8)), ("go1.26", (1, 26, 0)), ("go1.27rc1", (1, 27, 0))],
)
def test_go_versions(text: str, version: gotoolchain.Version) -> None:
    assert gotoolchain.parse_version(text) == version


def test_the_newest_go_directive_decides() -> None:
    assert gotoolchain.required_version(["module a\n\ngo 1.26.0\n", "go 1.26.3\n"]) == (1, 26, 3)


def test_an_old_go_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gotoolchain.find(tmp_path / "cache", (1, 26, 0)) is None
    assert gotoolchain.find(tmp_path / "cache", (1, 19, 0)) == gotoolchain.Go(old, "go1.19.8")


def test_a_programs_version_is_the_one_in_go_mod() -> None:
    go_mod = "module m\n\nrequire (\n\tk8s.io/kubernetes v1.36.4\n\tk8s.io/api v0.36.4 // indirect\n)\n"
    assert programs.module_version(go_mod, "k8s.io/kubernetes") == "v1.36.4"
    assert programs.module_version("require a.b/c v2.0.0\n", "a.b/c") == "v2.0.0"
    with pytest.raises(ValueError, match=r"does not require a\.b/d"):
        programs.module_version(go_mod, "a.b/d")


def test_a_changed_go_or_module_gives_another_path(tmp_path: Path) -> None:
    (program,) = programs.selected(["etcd"])
    older, newer = (
        programs.ProgramStore(tmp_path, gotoolchain.Go(Path("go"), version)).path(program)
        for version in ("go1.26.7", "go1.26.8")
    )
    assert older != newer
    assert older.parents[1] == newer.parents[1]


def test_optional_programs_are_built_on_request_only() -> None:
    assert "kwok" not in {program.name for program in programs.selected()}
    assert "kwok" in {program.name for program in programs.selected(extra=["kwok"])}
    with pytest.raises(BuildError, match="No program is called nothing"):
        programs.selected(["nothing"])


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=lambda program: program.name)
def test_every_program_has_a_module_that_pins_it(program: programs.Program) -> None:
    module = programs.MODULES / program.module
    go_mod = (module / "go.mod").read_text()
    assert "{version}" not in " ".join(program.arguments(go_mod))
    own = go_mod.splitlines()[0].removeprefix("module ")
    assert program.package in go_mod or (module / program.package.removeprefix(own).strip("/")).is_dir()


def test_the_registration_is_what_the_kernel_parses() -> None:
    line = binfmt.registration("arm64", "entry", Path("/usr/bin/qemu-aarch64-static"))
    _, name, kind, offset, magic, mask, interpreter, flags = line.split(b":")
    assert (name, kind, offset) == (b"entry", b"M", b"")
    assert (interpreter, flags) == (b"/usr/bin/qemu-aarch64-static", b"POCF")
    # The ELF header's machine field (offset 18) is 183, EM_AARCH64.
    assert magic.decode().encode().decode("unicode_escape").encode("latin-1")[18:] == b"\xb7\x00"
    assert len(magic.decode("unicode_escape")) == len(mask.decode("unicode_escape"))


KERNEL_ENTRY = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.mark.parametrize(
    ("description", "runs"),
    [
        (KERNEL_ENTRY, True),
        (KERNEL_ENTRY.replace("enabled", "disabled"), False),
        (KERNEL_ENTRY.replace("POCF", "POC"), False),
        (KERNEL_ENTRY.replace("b700", "f300"), False),
    ],
)
def test_an_entry_counts_when_it_works_in_any_root(description: str, *, runs: bool) -> None:
    assert binfmt.handles(description, "arm64") is runs


def test_a_change_survives_a_file() -> None:
    change = binfmt.Change(mounted=True, entry="qemu")
    assert binfmt.Change.from_dict(change.as_dict()) == change
