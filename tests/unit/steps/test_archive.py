"""Nothing in an archive reaches outside of the folder that it is unpacked into, and no archive is without an end."""

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiarchbuild.api.reasons import Reason
from multiarchbuild.steps import archive
from multiarchbuild.steps.archive import unpack
from multiarchbuild.steps.errors import StepError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def tar(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """Write an archive; every file in it has as many bytes as it says."""
    if mode == "w:zst":
        return compressed(path, tar(path, *members, mode="w:").read_bytes())
    with tarfile.open(path, mode) as written:  # type: ignore[call-overload]
        for member in members:
            written.addfile(member, io.BytesIO(b"x" * member.size) if member.isfile() else None)
    return path


def compressed(path: Path, content: bytes, **parameters: int) -> Path:
    """Write `content` as one Zstandard frame with these parameters."""
    options: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in parameters.items()}
    path.write_bytes(zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1, **options}))
    return path


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "Zstandard": zstd.compress,
}


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, to: str = "", *, mode: int = 0o644, size: int = 1
) -> tarfile.TarInfo:
    """Return an entry of a tar."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.mtime = kind, to, mode, 1_000
    member.size = size if kind == tarfile.REGTYPE else 0
    return member


def refused(path: Path, folder: Path) -> str:
    """Return why an archive is not unpacked."""
    with pytest.raises(StepError) as caught:
        unpack(path, folder, "it")
    assert caught.value.reason is Reason.SOURCE_INVALID
    return caught.value.message


HOSTILE = {
    "absolute": [entry("/etc/passwd")],
    "parent": [entry("../outside")],
    "hidden parent": [entry("a/../../outside")],
    "absolute link": [entry("link", tarfile.SYMTYPE, "/etc")],
    "link out": [entry("link", tarfile.SYMTYPE, "../..")],
    "through a link": [entry("a", tarfile.SYMTYPE, "."), entry("a/b", tarfile.SYMTYPE, ".."), entry("a/b/c")],
    "hard link out": [entry("link", tarfile.LNKTYPE, "../../etc/passwd")],
    "hard links in a circle": [entry("a", tarfile.LNKTYPE, "b"), entry("b", tarfile.LNKTYPE, "a")],
    "hard link to nothing": [entry("a", tarfile.LNKTYPE, "b")],
    "device": [entry("null", tarfile.CHRTYPE)],
    "disk": [entry("disk", tarfile.BLKTYPE)],
    "pipe": [entry("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("mode", ["w:gz", "w:zst"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_and_leaves_nothing_outside(tmp_path: Path, name: str, mode: str) -> None:
    folder = tmp_path / "in" / "context"
    folder.parent.mkdir()
    assert refused(tar(tmp_path / "a", *HOSTILE[name], mode=mode), folder)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a"}
    assert [path.name for path in folder.parent.iterdir()] == ["context"]


def zipped(path: Path, *entries: tuple[str, int, bytes]) -> Path:
    """Write a zip of entries (name, mode, content)."""
    with zipfile.ZipFile(path, "w") as written:
        for name, mode, content in entries:
            info = zipfile.ZipInfo(name, (2026, 1, 31, 12, 0, 0))
            info.create_system, info.external_attr = 3, mode << 16
            written.writestr(info, content)
    return path


LINK = stat.S_IFLNK | 0o777
FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    "entries",
    [
        [("/etc/passwd", FILE, b"")],
        [("../outside", FILE, b"")],
        [("a\\..\\..\\outside", FILE, b"")],
        [("link", LINK, b"/etc")],
        [("link", LINK, b"../..")],
        [("a", LINK, b"."), ("a/b", LINK, b".."), ("a/b/c", FILE, b"")],
        [("null", stat.S_IFCHR | 0o644, b"")],
    ],
)
def test_a_hostile_zip_is_refused_and_leaves_nothing_outside(
    tmp_path: Path, entries: list[tuple[str, int, bytes]]
) -> None:
    folder = tmp_path / "in" / "context"
    folder.parent.mkdir()
    assert refused(zipped(tmp_path / "a.zip", *entries), folder)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a.zip"}
    assert [path.name for path in folder.parent.iterdir()] == ["context"]


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz", "w:zst"])
def test_what_is_ordinary_is_unpacked_as_it_is(tmp_path: Path, mode: str) -> None:
    made = tar(
        tmp_path / "a",
        entry("bin/run", mode=0o755),
        entry("link", tarfile.SYMTYPE, "bin/run"),
        entry("hard", tarfile.LNKTYPE, "bin/run", mode=0o755),
        entry("bin/dangling", tarfile.SYMTYPE, "none"),
        mode=mode,
    )
    folder = tmp_path / "context"
    assert unpack(made, folder, "it") == 1_000
    assert (folder / "link").read_text() == (folder / "hard").read_text() == "x"
    assert os.access(folder / "bin" / "run", os.X_OK)
    assert (folder / "bin" / "dangling").is_symlink()
    assert {path.lstat().st_mtime for path in (folder, *folder.rglob("*"))} == {1_000}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_is_unpacked_with_links_and_modes(tmp_path: Path) -> None:
    made = zipped(
        tmp_path / "a.zip",
        ("bin/", stat.S_IFDIR | 0o755, b""),
        ("bin/run", stat.S_IFREG | 0o755, b"x"),
        ("link", LINK, b"bin/run"),
        ("link", FILE, b"y"),
    )
    folder = tmp_path / "context"
    assert unpack(made, folder, "it") == 1_769_860_800
    assert os.access(folder / "bin" / "run", os.X_OK)
    # The later entry takes the place of the link, and is not written through it.
    assert ((folder / "link").read_text(), (folder / "bin" / "run").read_text()) == ("y", "x")


@pytest.mark.parametrize("mode", ["w:gz", "w:zst"])
def test_more_bytes_or_entries_than_allowed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    made = tar(tmp_path / "a", entry("a", size=600_000), entry("b", size=600_000), mode=mode)
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    assert "holds more than" in refused(made, tmp_path / "one")
    monkeypatch.setattr(archive, "MAX_BYTES", 2_000_000)
    monkeypatch.setattr(archive, "MAX_ENTRIES", 1)
    assert "holds more than" in refused(made, tmp_path / "two")
    assert "holds more than" in refused(
        zipped(tmp_path / "a.zip", ("a", FILE, b""), ("b", FILE, b"")), tmp_path / "three"
    )


def test_a_zip_that_lies_about_its_sizes_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = zipped(tmp_path / "a.zip", ("a", FILE, b"x" * 1_000_000))
    raw = made.read_bytes()
    made.write_bytes(raw.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000)
    refused(made, tmp_path / "context")
    assert sum(path.stat().st_size for path in (tmp_path / "context").rglob("*")) <= 10


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all", b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"\x28\xb5\x2f\xfd no zst"]
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert "it" in refused(path, tmp_path / "context")


def test_a_truncated_archive_is_told(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a", *(entry(f"f{number}", size=5_000) for number in range(20)), mode="w:").read_bytes()
    (tmp_path / "b").write_bytes(whole[:30_100])
    assert "cannot be unpacked" in refused(tmp_path / "b", tmp_path / "context")


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_what_is_compressed_and_truncated_or_damaged_is_told(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    members = [entry(f"f{number}", size=50_000) for number in range(20)]
    whole = tar(tmp_path / "plain", *members, mode="w:").read_bytes()
    packed = pack(whole + os.urandom(10_000))
    for name, content in {
        "nothing but its magic": packed[:4],
        "the first half": packed[: len(packed) // 50],
        "damaged": packed[:20] + bytes(byte ^ 0xFF for byte in packed[20:80]) + packed[80:],
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be unpacked" in refused(tmp_path / name, tmp_path / f"context of {name}")


def test_frames_to_be_skipped_and_several_frames_are_one_archive(tmp_path: Path) -> None:
    whole = tar(tmp_path / "plain", entry("a", size=100_000), mode="w:").read_bytes()
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    (tmp_path / "a").write_bytes(skipped + zstd.compress(whole[:3_000]) + zstd.compress(whole[3_000:]))
    assert unpack(tmp_path / "a", tmp_path / "context", "it") == 1_000
    assert (tmp_path / "context" / "a").stat().st_size == 100_000


def test_the_memory_that_a_zstandard_frame_asks_for_has_a_bound(tmp_path: Path) -> None:
    # More than the window: a frame that is smaller asks for no more than its own size.
    content = tar(tmp_path / "plain", entry("a"), mode="w:").read_bytes() + bytes(129 * 1024**2)
    usual = compressed(tmp_path / "usual", content, window_log=27, enable_long_distance_matching=1)
    assert unpack(usual, tmp_path / "context", "it") == 1_000
    greedy = compressed(tmp_path / "greedy", content, window_log=28, enable_long_distance_matching=1)
    assert "too much memory" in refused(greedy, tmp_path / "other")


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 64 * 1024**2
    (tmp_path / "a").write_bytes(pack(header.tobuf() + bytes(header.size)))
    assert (tmp_path / "a").stat().st_size < 100_000
    assert "a header of more than 16 MiB" in refused(tmp_path / "a", tmp_path / "context")


def test_an_empty_archive_is_told(tmp_path: Path) -> None:
    assert "is empty" in refused(tar(tmp_path / "a"), tmp_path / "one")
    assert "is empty" in refused(zipped(tmp_path / "b.zip"), tmp_path / "two")


@given(
    names=st.lists(st.text("ab./\\-é\0", max_size=12), max_size=6),
    kinds=st.lists(st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]), max_size=6),
    links=st.lists(st.text("ab./", max_size=8), max_size=6),
    times=st.lists(st.sampled_from([0, 1, 2**33, 2**40]), max_size=6),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_tar_holds_it_is_unpacked_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], kinds: list[bytes], links: list[str], times: list[int]
) -> None:
    root = tmp_path_factory.mktemp("any")
    members = []
    for name, kind, to, time in zip(names, kinds, links, times, strict=False):
        member = entry(name, kind, to)
        member.mtime = time
        members.append(member)
    made = tar(root / "a.tar", *members, mode="w:")
    folder = root / "in" / "context"
    folder.parent.mkdir()
    try:
        assert unpack(made, folder, "it") >= 0
    except StepError as error:
        assert error.reason is Reason.SOURCE_INVALID  # noqa: PT017
    assert {path.name for path in root.iterdir()} == {"in", "a.tar"}
    assert [path.name for path in folder.parent.iterdir()] == ["context"]
