"""`kubectl mab explain`: what a reason means, wherever the documentation is not at hand."""

from pathlib import Path

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.cli import main

ROOT = Path(__file__).parents[3]


def test_the_page_that_is_packed_is_the_page_of_the_documentation() -> None:
    packed = ROOT / "operator" / "multiarchbuild" / "cli" / "troubleshooting.md"
    page = ROOT / "docs" / "troubleshooting.md"
    assert packed.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run make generate"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", reason]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{reason}\n\n")
    assert "What to do: " in text
    assert "`" not in text
    assert "](" not in text


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(Reason)


def test_a_misspelt_reason_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nobuilder"]) == 0
    capsys.readouterr()
    assert main(["explain", "NoBuildr"]) == 2
    assert "did you mean NoBuilder" in capsys.readouterr().err
