"""The matrix of docs/how-to/registries.md: each cell says how it is known, and each test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "registries.md").read_text(encoding="utf-8").partition("## What was tested")[2]
CELL = re.compile("(?:real|stand-in) ([a-z])|documented|\N{EN DASH}")


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _tests() -> dict[str, list[str]]:
    return {row[0]: re.findall(r"`([^`]+)`", row[1]) for row in _rows() if re.fullmatch("[a-z]", row[0])}


def test_each_cell_says_how_it_is_known_and_by_which_test() -> None:
    wide = [row for row in _rows() if len(row) > 2]
    head, *rows = wide
    assert len(rows) > 15
    used = set()
    for row in rows:
        assert len(row) == len(head), row[0]
        for cell in row[1:]:
            found = CELL.fullmatch(cell)
            assert found, f"{row[0]}: {cell}"
            used |= {found[1]} - {None}
    assert used == _tests().keys()


def test_each_test_exists() -> None:
    for tests in _tests().values():
        assert tests
        for each in tests:
            path, _, name = each.partition("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), each
