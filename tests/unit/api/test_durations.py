"""Durations are read as Go reads them, and nothing else is a duration."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.durations import parse_duration

PARTS = st.none() | st.integers(0, 999_999)


@given(PARTS, PARTS, PARTS)
def test_hours_minutes_and_seconds_add_up(hours: int | None, minutes: int | None, seconds: int | None) -> None:
    units = {"h": hours, "m": minutes, "s": seconds}
    text = "".join(f"{amount}{unit}" for unit, amount in units.items() if amount is not None)
    if text:
        assert parse_duration(text) == timedelta(hours=hours or 0, minutes=minutes or 0, seconds=seconds or 0)


@pytest.mark.parametrize(
    "text", ["", "90", "1d", "-5m", "1.5h", "30m1h", "1h 30m", "5ms", "1h\n", "\u0661m", "1234567s"]
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write hours, minutes and seconds") as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)
