"""Tests that share the cluster, and tests that have it alone."""

import threading
from pathlib import Path

from tests.support.turns import turn

PATIENCE = 10.0


class Guest:
    """Has a turn in a thread of its own until told to leave."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self.inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._stay, args=(folder, alone), daemon=True)
        self._thread.start()

    def _stay(self, folder: Path, alone: bool) -> None:  # noqa: FBT001
        with turn(folder, alone=alone):
            self.inside.set()
            assert self._leave.wait(PATIENCE)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(PATIENCE)


def test_those_who_share_are_there_together(tmp_path: Path) -> None:
    guests = [Guest(tmp_path, alone=False) for _ in range(3)]
    assert all(guest.inside.wait(PATIENCE) for guest in guests)
    for guest in guests:
        guest.leave()


def test_who_wants_to_be_alone_waits_for_those_inside_but_not_for_those_who_come_later(tmp_path: Path) -> None:
    first = Guest(tmp_path, alone=False)
    assert first.inside.wait(PATIENCE)
    alone = Guest(tmp_path, alone=True)
    assert not alone.inside.wait(0.2)
    later = Guest(tmp_path, alone=False)
    assert not later.inside.wait(0.2)
    first.leave()
    assert alone.inside.wait(PATIENCE)
    assert not later.inside.is_set()
    alone.leave()
    assert later.inside.wait(PATIENCE)
    later.leave()
