"""What `kubectl mab build` packs is what the build step unpacks: names, modes, links and bytes of any folder."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiarchbuild.cli.pack import Context, pack
from multiarchbuild.steps.archive import unpack
from multiarchbuild.steps.dates import EARLIEST

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "c", "ü", "x" * 150, "-", ".hidden", "a b", "a\nb", "\\", "a:b", "\N{PILE OF POO}", "\udcff"]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
        lambda name: name not in {".", "..", ".git"}  # which stays at home
    ),
)
MODES = st.sampled_from([0o644, 0o664, 0o600, 0o755, 0o775, 0o4755, 0o2755, 0o6711, 0o444, 0o400, 0o777, 0o1644])
FOLDER_MODES = st.sampled_from([0o755, 0o700, 0o1777, 0o775, 0o2775, 0o500, 0o555])
TARGETS = st.sampled_from(["a", "../a", "/etc/passwd", "/", "../../..", ".", "none", "b/" + "y" * 200, "ü", "\udcff"])


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int


@dataclass(frozen=True)
class Link:
    to: str


@dataclass(frozen=True)
class Again:
    """A hard link to the file that was made this many before, if there is one."""

    back: int


@dataclass(frozen=True)
class Folder:
    entries: Mapping[str, "File | Link | Again | Folder"]
    mode: int


LEAVES = st.one_of(
    st.builds(File, st.binary(max_size=2000), MODES), st.builds(Link, TARGETS), st.builds(Again, st.integers(1, 3))
)
FOLDERS = st.recursive(
    st.builds(Folder, st.dictionaries(NAMES, LEAVES, max_size=4), FOLDER_MODES),
    lambda inner: st.builds(Folder, st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=4), FOLDER_MODES),
    max_leaves=6,
)


def write(folder: Folder, at: Path, made: list[Path]) -> None:
    """Make a folder with all that is in it."""
    at.mkdir(exist_ok=True)
    for name, entry in folder.entries.items():
        path = at / name
        match entry:
            case File(content, mode):
                path.write_bytes(content)
                path.chmod(mode)
                made.append(path)
            case Link(to):
                path.symlink_to(to)
                made.append(path)
            case Again(back):
                if len(made) >= back:
                    os.link(made[-back], path, follow_symlinks=False)
            case Folder():
                write(entry, path, made)
    at.chmod(folder.mode)


Seen = tuple[str, int, bytes, frozenset[str]]


def seen(root: Path) -> dict[str, Seen]:
    """Return kind, mode, content and other names of everything below `root`."""
    entries = {os.path.relpath(path, root): path for path in root.rglob("*")}
    names: dict[int, set[str]] = {}
    for name, path in entries.items():
        if not path.is_dir() or path.is_symlink():
            names.setdefault(path.lstat().st_ino, set()).add(name)
    found = {}
    for name, path in entries.items():
        status = path.lstat()
        if path.is_symlink():
            found[name] = ("link", 0, os.fsencode(path.readlink()), frozenset(names[status.st_ino]))
        elif path.is_dir():
            found[name] = ("folder", stat.S_IMODE(status.st_mode), b"", frozenset[str]())
        else:
            mode = stat.S_IMODE(status.st_mode)
            found[name] = ("file", mode, path.read_bytes(), frozenset(names[status.st_ino]))
    return found


@given(FOLDERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_folder_is_packed_and_unpacked_as_it_is(tmp_path_factory: pytest.TempPathFactory, folder: Folder) -> None:
    root = tmp_path_factory.mktemp("trip")
    there, back = root / "there", root / "back"
    write(folder, there, [])
    there.chmod(0o755)
    if not (there / "Dockerfile").exists():
        (there / "Dockerfile").write_text("FROM scratch\n")
    with (root / "packed").open("w+b") as file:
        packed = pack(Context.open(there, "Dockerfile"), file)
    unpack(root / "packed", back, "it")
    assert seen(back) == seen(there)
    assert {path.lstat().st_mtime for path in (back, *back.rglob("*"))} == {EARLIEST}
    with (root / "again").open("w+b") as file:
        again = pack(Context.open(back, "Dockerfile"), file)
    assert again == packed, "and once more"


def test_a_file_that_nobody_may_read_can_still_be_sent(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can pack it")
    there = tmp_path / "there"
    (there / "d").mkdir(parents=True)
    (there / "Dockerfile").write_text("FROM scratch\n")
    (there / "d" / "a").touch(mode=0)
    (there / "d").chmod(0)
    with (tmp_path / "packed").open("w+b") as file:
        pack(Context.open(there, "Dockerfile"), file)
    unpack(tmp_path / "packed", tmp_path / "back", "it")
    assert [stat.S_IMODE((tmp_path / "back" / name).stat().st_mode) for name in ("d", "d/a")] == [0o500, 0o400]
