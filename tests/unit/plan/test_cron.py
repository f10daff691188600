"""Schedules of cron."""

from datetime import datetime

import pytest

from multiarchbuild.api.cron import Schedule


def at(text: str) -> datetime:
    """Return a moment in UTC."""
    return datetime.fromisoformat(f"{text}:00+00:00")


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        ("* * * * *", "2026-11-26T12:00", "2026-11-26T12:01"),
        ("0 3 * * *", "2026-11-26T02:59", "2026-11-26T03:00"),
        ("0 3 * * *", "2026-11-26T03:00", "2026-11-27T03:00"),
        ("*/15 9-17 * * Mon-Fri", "2026-11-27T17:45", "2026-11-30T09:00"),
        ("5/20 * * * *", "2026-11-26T12:06", "2026-11-26T12:25"),
        ("0 0 1 jan *", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2026-11-26T12:00", "2028-02-29T00:00"),
        ("0 0 13 * 5", "2026-11-26T12:00", "2026-11-27T00:00"),
        ("0 0 * * 7", "2026-11-26T12:00", "2026-11-29T00:00"),
        ("0 0 * * 0", "2026-11-26T12:00", "2026-11-29T00:00"),
        ("0 12 31 * *", "2026-11-26T12:00", "2026-12-31T12:00"),
        ("0,30 0 1,15 * *", "2026-11-26T12:00", "2026-12-01T00:00"),
    ],
)
def test_when_it_is_due(schedule: str, after: str, due: str) -> None:
    assert Schedule.parse(schedule).after(at(after)) == at(due)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("0 3 * *", "five fields"),
        ("60 * * * *", "goes from 0 to 59"),
        ("* * 0 * *", "goes from 1 to 31"),
        ("* * * FOO *", "'FOO' is not a month"),
        ("5-1 * * * *", "goes from 0 to 59"),
        ("*/0 * * * *", "goes from 0 to 59"),
        ("a;b * * * *", "is not a minute"),
        ("0 0 31 2 *", "names a day that no month has"),
    ],
)
def test_what_is_none(schedule: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule.parse(schedule)
