"""What others wrote does nothing to the terminal of who reads it."""

import io

import pytest
from rich.text import Text

from multiarchbuild.cli import console
from multiarchbuild.cli.choices import Format, Output

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
        ("\u061ca\u2028b\u2029c", "\ufffda\ufffdb\ufffdc"),
        ("half \ud83d of a character", "half \ufffd of a character"),
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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (12, "12s"), (185, "3m05s"), (7800, "2h10m"), (4 * 86400, "4d"), (-5, "0s"), (1e15, "11574074074d")],
)
def test_a_span_is_short_and_never_negative(seconds: float | None, shown: str) -> None:
    assert console.span(seconds) == shown


@pytest.mark.parametrize("form", [Output(Format.JSON), Output(Format.JSONPATH, "{.a}")])
def test_halves_of_characters_do_not_end_a_command(form: Output, capsys: pytest.CaptureFixture[str]) -> None:
    console.document({"a": "\ud83d"}, form)
    written = capsys.readouterr().out
    assert written.encode()
    assert "?" in written
