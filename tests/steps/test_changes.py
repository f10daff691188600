"""Waiting for files that are written as the kubelet writes those of a volume."""

import threading
import time
from pathlib import Path

import pytest
from inotify_simple import INotify

from multiarchbuild.steps import changes
from multiarchbuild.steps.changes import Changes


def write(folder: Path, text: str) -> None:
    """Write `file` of a volume as the kubelet's AtomicWriter does: into a new folder, to which a link is renamed."""
    made = folder / f"..{time.monotonic_ns()}"
    made.mkdir()
    (made / "file").write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(made.name)
    link.rename(folder / "..data")
    if not (folder / "file").is_symlink():
        (folder / "file").symlink_to("..data/file")


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def waited(changes: Changes, seconds: float) -> float:
    start = time.monotonic()
    changes.wait(seconds)
    return time.monotonic() - start


def test_what_the_kubelet_writes_ends_a_wait_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_LONGEST", 20.0)
    write(tmp_path, "before")
    with Changes(tmp_path) as changed:
        assert waited(changed, 0.2) >= 0.2, "nothing is written"
        threading.Timer(0.2, write, (tmp_path, "after")).start()
        assert waited(changed, 15) < 10
        assert (tmp_path / "file").read_text() == "after"


def test_what_is_written_before_the_wait_is_not_slept_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_LONGEST", 20.0)
    with Changes(tmp_path) as changed:
        write(tmp_path, "meanwhile")
        assert waited(changed, 15) < 10


@pytest.mark.parametrize("refused", ["INotify", "add_watch"])
def test_where_the_kernel_does_not_tell_it_is_looked_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def no_more(*_: object) -> None:
        raise OSError(24, "Too many open files")

    owner: object = changes if refused == "INotify" else INotify
    monkeypatch.setattr(owner, refused, no_more)
    before = opened()
    with Changes(tmp_path) as changed:
        assert waited(changed, 15) < 5
        assert waited(changed, -1) < 5
    assert opened() == before


def test_a_wait_is_never_longer_than_what_an_event_may_be_lost_for(tmp_path: Path) -> None:
    with Changes(tmp_path) as changed:
        assert waited(changed, 60) < 20
