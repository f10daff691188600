"""Waiting: as long as something changes, and not much longer."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from hack.target import Target
from tests.support import watch

_KUBECTL = """\
#!/bin/sh
number=0
while [ $number -lt {events} ]; do
  number=$((number + 1))
  echo '{{"type": "MODIFIED", "object": {{"metadata": {{"uid": "u"}}, "status": {{"number": '$number'}}}}}}'
  sleep {pause}
done
exec sleep 60
"""


@dataclass
class Programs:
    """A target whose kubectl tells of some changes and then nothing more."""

    environment: dict[str, str]


def target(folder: Path, events: int, pause: float) -> Target:
    program = folder / "kubectl"
    program.write_text(_KUBECTL.format(events=events, pause=pause), encoding="utf-8")
    program.chmod(0o755)
    return cast("Target", Programs({**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}))


def last(objects: watch.Objects, number: int) -> bool:
    return any(entry["status"]["number"] == number for entry in objects.values())


def test_what_makes_progress_is_waited_for_though_it_takes_longer(tmp_path: Path) -> None:
    slow = target(tmp_path, events=12, pause=0.5)
    started = time.monotonic()
    assert watch.wait_for(slow, "things", until=lambda objects: last(objects, 12), seconds=5)
    assert time.monotonic() - started > 5


def test_what_makes_no_progress_is_given_up(tmp_path: Path) -> None:
    stuck = target(tmp_path, events=1, pause=0)
    with pytest.raises(AssertionError, match=r"not within \d+ s: the second; last seen: ") as error:
        watch.wait_for(stuck, "things", until=lambda objects: last(objects, 2), seconds=5, why="the second")
    assert json.loads(str(error.value).partition("last seen: ")[2]) == [{"number": 1}]


def test_what_changes_for_ever_is_given_up_too(tmp_path: Path) -> None:
    restless = target(tmp_path, events=10_000, pause=0.05)
    with watch.watching(restless, "things", seconds=30, longest=0.5) as changes:
        assert len(list(changes)) < 100
