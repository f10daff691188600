"""Pictures of the command line."""

from rich.text import Text

from tests.ui.stage import Stage, furnished
from tests.ui.terminal import picture, shown


def test_a_picture_goes_on_in_the_next_row_and_loads_nothing() -> None:
    svg = picture(f"\x1b[32m{'a' * 80}{'b' * 5}\x1b[0m\nc\n", 80, "kubectl mab")
    assert f">{'a' * 80}<" in svg
    assert f">{'b' * 5}<" in svg
    assert "@font-face" not in svg
    assert "url(http" not in svg


def test_bars_of_a_followed_run_fit_in_eighty_columns() -> None:
    with Stage().serving() as stage:
        furnished(stage, builds=3)
        frame = shown(stage, ("status", "checkout", "--follow"), 80)
    rows = Text.from_ansi(frame).plain.splitlines()
    assert [row.split()[0] for row in rows] == ["team-a/checkout", "linux/amd64", "linux/arm64", "index"]
    assert max(map(len, rows)) <= 80
    assert "[build 6/6] RUN npm run build" in frame
