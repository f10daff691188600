"""The cache: an entry is complete or absent, and one builder works at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.build.cache import content_key, locked, publish, staging, staging_root


def test_a_key_depends_on_where_one_part_ends() -> None:
    assert content_key(["ab", "c"]) != content_key(["a", "bc"])
    assert content_key(["ab", b"c"]) == content_key([b"ab", "c"])


def test_what_is_staged_is_gone_when_the_build_fails(tmp_path: Path) -> None:
    def interrupted() -> None:
        with staging(tmp_path) as work:
            (work / "program").write_text("half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(staging_root(tmp_path).iterdir()) == []


def test_a_published_directory_appears_whole_and_the_first_one_stays(tmp_path: Path) -> None:
    final = tmp_path / "layers" / "key"
    for content in ("first", "second"):
        with staging(tmp_path) as work:
            (work / "result").mkdir()
            (work / "result" / "layer").write_text(content)
            publish(work / "result", final)
    assert (final / "layer").read_text() == "first"


def test_a_builder_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = _holder(lock)
    holder.kill()
    holder.wait()
    waited: list[str] = []
    with locked(lock, waited.append):
        assert waited == []


def test_a_second_builder_waits_and_says_for_whom(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = _holder(lock)

    def release(line: str) -> None:
        assert f"process {holder.pid}" in line
        holder.kill()

    with locked(lock, release):
        assert holder.wait() != 0


def _holder(lock: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock until it is killed."""
    program = (
        "import sys, pathlib\n"
        "from tests.cluster.build.cache import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), print):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder
