"""What others wrote does nothing to the terminal of who reads it."""

import io

import pytest
from rich.text import Text

from multiarchbuild.cli import console

ESC = "\x1b"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        (f"{ESC}[31mred{ESC}[0m", "red"),
        (f"{ESC}[2J{ESC}]0;title\x07", "␛[2J␛]0;title␇"),
        (f"{ESC}[8mhidden", "hidden"),
        ("a\x00b\rc\x7f", "a␀b␍c␡"),
        ("\x9b2J \u202eright to left", "\ufffd2J \ufffdright to left"),
        ("é 漢 🙂", "é 漢 🙂"),
    ],
)
def test_what_a_terminal_may_act_on_is_shown(written: str, shown: str) -> None:
    assert console.visible(written) == shown


def test_nothing_that_is_printed_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    console.show([*console.table(["NAME"], [[f"x{ESC}[2J"]]), Text(f"{ESC}]0;title\x07 \u202e", style="red")])
    assert ESC not in out.getvalue()
    assert "x␛[2J" in out.getvalue()
    assert "\u202e" not in out.getvalue()
