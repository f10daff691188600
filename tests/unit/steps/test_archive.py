"""Nothing in an archive reaches outside of the folder that it is unpacked into, and no archive is without an end."""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiarchbuild.api.reasons import Reason
from multiarchbuild.steps import archive
from multiarchbuild.steps.archive import unpack
from multiarchbuild.steps.dates import EARLIEST, LATEST
from multiarchbuild.steps.errors import StepError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


TIME = 1_700_000_000
"""When what is packed here was changed."""


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
    "gzip": partial(gzip.compress, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "Zstandard": zstd.compress,
}


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, to: str = "", *, mode: int = 0o644, size: int = 1
) -> tarfile.TarInfo:
    """Return an entry of a tar."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.mtime = kind, to, mode, TIME
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
    "through a link": [entry("a", tarfile.SYMTYPE, "."), entry("a/b", tarfile.SYMTYPE, ".."), entry("a/b/c")],
    "through an absolute link": [entry("a", tarfile.SYMTYPE, "/etc"), entry("a/passwd")],
    "through links": [entry("b", tarfile.SYMTYPE, "../.."), entry("a", tarfile.SYMTYPE, "b"), entry("a/c/d")],
    "folder through a link": [entry("a", tarfile.SYMTYPE, ".."), entry("a/b", tarfile.DIRTYPE)],
    "link through a link": [entry("a", tarfile.SYMTYPE, ".."), entry("a/b", tarfile.SYMTYPE, "c")],
    "hard link through a link": [entry("a", tarfile.SYMTYPE, "../.."), entry("b", tarfile.LNKTYPE, "a/a")],
    "hard link to a folder": [entry("a", tarfile.DIRTYPE), entry("b", tarfile.LNKTYPE, "a")],
    "hard link to itself": [entry("a"), entry("a", tarfile.LNKTYPE, "a")],
    "no name": [entry("")],
    "only a dot": [entry(".")],
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
        [("C:\\outside", FILE, b"")],
        [("a", LINK, b"/etc"), ("a/passwd", FILE, b"")],
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
    assert unpack(made, folder, "it") == TIME
    assert (folder / "link").read_text() == (folder / "hard").read_text() == "x"
    assert os.access(folder / "bin" / "run", os.X_OK)
    assert (folder / "bin" / "dangling").is_symlink()
    assert {path.lstat().st_mtime for path in (folder, *folder.rglob("*"))} == {TIME}


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
    packed = pack(whole + random.Random(1).randbytes(10_000))
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
    assert unpack(tmp_path / "a", tmp_path / "context", "it") == TIME
    assert (tmp_path / "context" / "a").stat().st_size == 100_000


def test_the_memory_that_a_zstandard_frame_asks_for_has_a_bound(tmp_path: Path) -> None:
    # More than the window: a frame that is smaller asks for no more than its own size.
    content = tar(tmp_path / "plain", entry("a"), mode="w:").read_bytes() + bytes(129 * 1024**2)
    usual = compressed(tmp_path / "usual", content, window_log=27, enable_long_distance_matching=1)
    assert unpack(usual, tmp_path / "context", "it") == TIME
    greedy = compressed(tmp_path / "greedy", content, window_log=28, enable_long_distance_matching=1)
    assert "too much memory" in refused(greedy, tmp_path / "other")


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 64 * 1024**2
    (tmp_path / "a").write_bytes(pack(header.tobuf() + bytes(header.size)))
    assert (tmp_path / "a").stat().st_size < 100_000
    assert "a header of more than 1 MiB" in refused(tmp_path / "a", tmp_path / "context")


def test_an_empty_archive_is_told(tmp_path: Path) -> None:
    assert "is empty" in refused(tar(tmp_path / "a"), tmp_path / "one")
    assert "is empty" in refused(zipped(tmp_path / "b.zip"), tmp_path / "two")


@given(
    names=st.lists(st.text("ab./\\-é\0", max_size=12), max_size=6),
    kinds=st.lists(st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]), max_size=6),
    links=st.lists(st.text("ab./", max_size=8), max_size=6),
    times=st.lists(st.sampled_from([0, 1, 2**33, 2**40, -1, TIME]), max_size=6),
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
        assert EARLIEST <= unpack(made, folder, "it") <= LATEST
    except StepError as error:
        assert error.reason is Reason.SOURCE_INVALID  # noqa: PT017
    assert {path.name for path in root.iterdir()} == {"in", "a.tar"}
    assert [path.name for path in folder.parent.iterdir()] == ["context"]


# What a format may begin with


def test_what_adds_up_to_the_checksum_of_a_tar_by_chance_is_none(tmp_path: Path) -> None:
    """A gzip was one in some seconds, because its header has the time: a checksum that is not there is read as 0."""
    content = gzip.compress(tar(tmp_path / "a", entry("a", size=900_000), mode="w:").read_bytes(), mtime=0)
    # With a name (RFC 1952, section 2.3), of which each byte moves the sum by one.
    packed = bytearray(content[:3] + b"\x08" + content[4:10] + b"x" * 12 + b"\0" + content[10:])
    name = iter(range(10, 22))
    while total := tarfile.calc_chksums(bytes(packed[:512]))[1]:  # type: ignore[attr-defined]
        packed[next(name)] = (ord("x") - max(-7, min(total, 119))) % 256
    assert tarfile.TarInfo.frombuf(bytes(packed[:512]), "utf-8", "surrogateescape"), "it passes for the header of a tar"
    (tmp_path / "b").write_bytes(packed)
    assert unpack(tmp_path / "b", tmp_path / "context", "it") == TIME


@pytest.mark.parametrize("name", ["BZh91AY&SY", "BZ", "PK\x03\x04", "\x1f\x8b\x08", "P*M\x18x", "(\xb5", "\xfd7zXZ"])
def test_a_tar_is_a_tar_whatever_its_first_file_is_called(tmp_path: Path, name: str) -> None:
    made = tar(tmp_path / "a", entry(name), mode="w:")
    unpack(made, tmp_path / "context", "it")
    assert [path.name for path in (tmp_path / "context").iterdir()] == [name]


# Zips of other programs


def test_a_zip_whose_entries_have_no_date_is_unpacked(tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", ("a", FILE, b"x"))
    raw = bytearray(made.read_bytes())
    for signature, at in ((b"PK\x03\x04", 10), (b"PK\x01\x02", 12)):
        where = raw.index(signature) + at
        raw[where : where + 4] = bytes(4)
    made.write_bytes(raw)
    assert unpack(made, tmp_path / "context", "it") == EARLIEST


def test_a_zip_with_an_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", ("n", FILE, b"x"))
    made.write_bytes(made.read_bytes().replace(b"n", b"\0"))  # zipfile cuts names at a NUL character
    assert "has no name" in refused(made, tmp_path / "in")


def test_a_zip_with_a_password_says_so(tmp_path: Path) -> None:
    made = zipped(tmp_path / "a.zip", ("a", FILE, b"x"))
    raw = bytearray(made.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + at] |= 1
    made.write_bytes(raw)
    assert "'a' is encrypted: make the archive without a password" in refused(made, tmp_path / "context")


@pytest.mark.parametrize("target", ["/etc/passwd", "../..", "none"])
def test_a_link_may_lead_anywhere_and_is_kept_as_it_is(tmp_path: Path, target: str) -> None:
    for made in (
        tar(tmp_path / "a", entry("file"), entry("link", tarfile.SYMTYPE, target)),
        zipped(tmp_path / "b", ("file", FILE, b"x"), ("link", LINK, target.encode())),
    ):
        folder = tmp_path / f"context of {made.name}"
        unpack(made, folder, "it")
        assert str((folder / "link").readlink()) == target


# Bounds


def peak(made: Path, folder: Path) -> tuple[int, str]:
    """Return how much more memory (MiB) a process needs that unpacks an archive, and how that ended."""
    program = """
import resource, sys
from pathlib import Path
from multiarchbuild.steps.archive import unpack
from multiarchbuild.steps.errors import StepError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), "it")
    ended = "unpacked"
except StepError as error:
    ended = error.message
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, ended)
"""
    command = [sys.executable, "-c", program, str(made), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, _, ended = done.stdout.strip().partition(" ")
    return int(size), ended


def extended(kind: bytes, content: bytes) -> bytes:
    """Return an extended header of a tar with this content."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key: str, value: str) -> bytes:
    """Return one record of an extended header."""
    text = f" {key}={value}\n".encode()
    size = len(text) + len(str(len(text)))
    return str(len(text) + len(str(size))).encode() + text


def a_link_of_400_mib(path: Path) -> Path:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr, info.compress_type = 3, LINK << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as written, written.open(info, "w", force_zip64=True) as target:
        for _ in range(400):
            target.write(bytes(1024**2))
    return path


def headers_of_560_mib(path: Path) -> Path:
    one = extended(tarfile.XHDTYPE, record("comment", "x" * 900_000)) + entry("a", size=0).tobuf()
    with gzip.open(path, "wb", compresslevel=1) as written:
        for _ in range(640):
            written.write(one)
    return path


def headers_for_all(path: Path) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as written:
        for number in range(300):
            written.write(extended(tarfile.XGLTYPE, record(f"key{number}", "x" * 900_000)))
        written.write(entry("a", size=0).tobuf())
    return path


def headers_before_headers(path: Path) -> Path:
    many = b"".join(record(f"k{number}", "") for number in range(50_000))
    with gzip.open(path, "wb", compresslevel=1) as written:
        for _ in range(300):
            written.write(extended(tarfile.XHDTYPE, many))
        written.write(entry("a", size=0).tobuf())
    return path


def a_million_entries(path: Path) -> Path:
    one = b"PK\x01\x02" + bytes(24) + (1).to_bytes(2, "little") + bytes(16) + b"a"
    count = 1_000_000
    end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, count * len(one), 4)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 4 + count * len(one), 1)
    last = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(b"PK\x03\x04" + one * count + end + locator + last)
    return path


def a_dictionary_of_1_gib(path: Path) -> Path:
    decoded = lzma.compress(tar(path, entry("a"), mode="w:").read_bytes(), preset=0)
    # In the header of the block (12 bytes, of which the last 4 are a checksum) the size is one byte; 36 is 1 GiB.
    block = bytearray(decoded[12:24])
    block[4] = 36
    block[8:12] = zlib.crc32(bytes(block[:8])).to_bytes(4, "little")
    path.write_bytes(decoded[:12] + bytes(block) + decoded[24:])
    return path


HUNGRY: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a link of 400 MiB": (a_link_of_400_mib, "the link 'link' has a target of more than 4096 bytes"),
    "headers of 560 MiB": (headers_of_560_mib, "headers of more than 1 MiB, or 512 in all"),
    "headers for all entries": (headers_for_all, "headers"),
    "headers before headers": (headers_before_headers, "headers of more than 1 MiB"),
    "a million entries": (a_million_entries, "holds more than 4 GiB or 250000 entries"),
    "a dictionary of 1 GiB": (a_dictionary_of_1_gib, "Memory usage limit exceeded"),
}


@pytest.mark.parametrize("name", HUNGRY)
def test_no_archive_fills_the_memory(tmp_path: Path, name: str) -> None:
    make, words = HUNGRY[name]
    made = make(tmp_path / "a")
    assert made.stat().st_size < 64 * 1024**2
    size, ended = peak(made, tmp_path / "context")
    assert words in ended
    assert size < 128, f"{size} MiB"


def test_a_sparse_file_counts_as_large_as_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hole = 10 * 1024**2
    map_ = f"1\n{hole}\n1\n".encode().ljust(512, b"\0")
    content = map_ + b"x".ljust(512, b"\0")
    headers = b"".join(
        record(f"GNU.sparse.{key}", value)
        for key, value in (("major", "1"), ("minor", "0"), ("name", "sparse"), ("realsize", str(hole + 1)))
    )
    info = tarfile.TarInfo("sparse")
    info.size = 513
    (tmp_path / "a").write_bytes(extended(tarfile.XHDTYPE, headers) + info.tobuf() + content + bytes(1024))
    unpack(tmp_path / "a", tmp_path / "context", "it")
    written = (tmp_path / "context" / "sparse").read_bytes()
    assert (len(written), written.rstrip(b"x").count(0), written[-1:]) == (hole + 1, hole, b"x")
    monkeypatch.setattr(archive, "MAX_BYTES", hole)
    assert "holds more than" in refused(tmp_path / "a", tmp_path / "other")


def test_entries_of_one_name_and_hard_links_count_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    same = tar(tmp_path / "a", *(entry("a", size=300_000) for _ in range(4)))
    assert "holds more than" in refused(same, tmp_path / "one")
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    links = [entry(name, tarfile.LNKTYPE, "a") for name in "bcd"]
    assert "holds more than" in refused(tar(tmp_path / "b", entry("a"), *links), tmp_path / "two")


def test_a_hard_link_is_to_what_has_the_name_then(tmp_path: Path) -> None:
    first, second, link = entry("a", size=5), entry("a", size=7), entry("b", tarfile.LNKTYPE, "a")
    folder = tmp_path / "context"
    unpack(tar(tmp_path / "a", first, second, link), folder, "it")
    assert ((folder / "b").stat().st_size, (folder / "a").stat().st_nlink) == (7, 2)


# Anything at all


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One archive of each format."""
    root = tmp_path_factory.mktemp("whole")
    members = [
        entry("d", tarfile.DIRTYPE, mode=0o755),
        entry("d/" + "long" * 40, size=700),
        entry("d/exe", mode=0o4755, size=20),
        entry("link", tarfile.SYMTYPE, "d/exe"),
        entry("hard", tarfile.LNKTYPE, "d/exe"),
    ]
    plain = tar(root / "tar", *members, mode="w:").read_bytes()
    entries = [("d/", stat.S_IFDIR | 0o755, b""), ("d/a", FILE, b"a" * 500), ("l", LINK, b"d/a")]
    found = {"tar": plain, "zip": zipped(root / "zip", *entries).read_bytes()}
    return found | {name: pack(plain) for name, pack in PACKERS.items()}


@pytest.mark.parametrize("kind", ["tar", "zip", *PACKERS])
def test_no_damage_makes_an_archive_anything_but_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], kind: str
) -> None:
    original = whole[kind]
    root = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, len(original) - 1), st.binary(min_size=1, max_size=4)), max_size=4),
        st.one_of(st.none(), st.integers(0, len(original))),
        st.binary(max_size=20),
    )
    def damage(changes: list[tuple[int, bytes]], cut: int | None, after: bytes) -> None:
        content = bytearray(original)
        for at, new in changes:
            content[at : at + len(new)] = new
        if kind == "tar":
            content = resealed(content)
        (root / "a").write_bytes(bytes(content[:cut]) + after)
        folder = root / "in" / "context"
        shutil.rmtree(root / "in", ignore_errors=True)
        try:
            unpack(root / "a", folder, "it")
        except StepError as error:
            assert error.reason is Reason.SOURCE_INVALID, error.message  # noqa: PT017
        assert {path.name for path in root.iterdir()} == {"in", "a"}
        assert [path.name for path in folder.parent.iterdir()] == ["context"]

    damage()


def resealed(content: bytearray) -> bytearray:
    """Return a tar with the right checksum in every header, so that damage in one is looked at."""
    for at in range(0, len(content) - 511, 512):
        block = content[at : at + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            content[at + 148 : at + 156] = f"{total:06o}\0 ".encode()
    return content
