"""The times of files: what a buildkitd that has seen an earlier version goes by."""

from pathlib import Path

import pytest

from multiarchbuild.steps.dates import EARLIEST, date, tell_apart


def stamped(folder: Path, content: bytes) -> int:
    """Return the time of a file with this content, in nanoseconds, after it was dated like all others."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(content)
    (folder / "link").symlink_to("nowhere")
    date(folder, EARLIEST)
    tell_apart(folder)
    assert (folder / "link").lstat().st_mtime == EARLIEST
    return (folder / "sub" / "file").stat().st_mtime_ns


@pytest.mark.parametrize("other", [b"2", b"", b"10"])
def test_files_of_different_content_have_different_times_within_one_second(tmp_path: Path, other: bytes) -> None:
    first, second = stamped(tmp_path / "a", b"1"), stamped(tmp_path / "b", other)
    assert first != second
    assert first // 10**9 == second // 10**9 == EARLIEST


def test_the_same_content_has_the_same_time(tmp_path: Path) -> None:
    assert stamped(tmp_path / "a", b"1") == stamped(tmp_path / "b", b"1")
