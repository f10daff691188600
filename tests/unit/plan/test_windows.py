"""When runs may start that nobody has asked for."""

from datetime import UTC, datetime

import pytest

from multiarchbuild.api.rebuild import Window
from multiarchbuild.plan.windows import is_open, opens_at

NIGHT = Window(start="22:00", duration="6h")
SUNDAY = Window(start="22:00", duration="6h", days=("Sun",))
ALWAYS = Window(start="00:00", duration="24h")


def at(text: str) -> datetime:
    """Return a moment of November 2026, of which the 1st is a Sunday."""
    return datetime.fromisoformat(f"2026-11-{text}:00+00:00")


@pytest.mark.parametrize(
    ("window", "moment", "opens"),
    [
        (None, "02T12:00", "02T12:00"),
        (ALWAYS, "02T12:00", "02T12:00"),
        (NIGHT, "02T12:00", "02T22:00"),
        (NIGHT, "02T22:00", "02T22:00"),
        (NIGHT, "03T03:59", "03T03:59"),
        (NIGHT, "03T04:00", "03T22:00"),
        (SUNDAY, "01T23:00", "01T23:00"),
        (SUNDAY, "02T03:00", "02T03:00"),
        (SUNDAY, "02T04:00", "08T22:00"),
    ],
)
def test_when_a_window_is_open(window: Window | None, moment: str, opens: str) -> None:
    assert opens_at(window, at(moment)) == at(opens)
    assert is_open(window, at(moment)) is (moment == opens)


def test_it_is_in_utc() -> None:
    assert opens_at(NIGHT, datetime.fromisoformat("2026-11-02T23:30:00+02:00")) == datetime(2026, 11, 2, 22, tzinfo=UTC)
