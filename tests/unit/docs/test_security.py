"""docs/security.md names a test for each threat, and the tests that it names exist."""

import re

import pytest

from tests.support.markdown import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d[a-z] \|", line)
]
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE)))


def test_every_threat_has_a_test_or_says_why_not() -> None:
    assert ROWS
    for row in ROWS:
        number, _, answer, shown_by = (cell.strip("| ") for cell in row[:4])
        assert answer, number
        assert "`tests/" in shown_by or shown_by.startswith("none: "), number


def test_every_threat_has_a_number_of_its_own() -> None:
    numbers = [row[0] for row in ROWS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_exists(name: str) -> None:
    file, _, test = name.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"def {test}\(" if test else r"def test_|\nTest\w+ = ", text), name
