"""Schedules as cron writes them: minute, hour, day of the month, month, day of the week, in UTC.

Source: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/crontab.html, with steps and names as in CronJobs.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?P<first>\*|[0-9A-Z]+)(-(?P<last>[0-9A-Z]+))?(/(?P<step>[0-9]{1,3}))?")
_YEARS = 8
"""From one 29 February to the next it is that long at most, about 1900 and 2100."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """From 0, Sunday, to 6."""
    either: bool
    """Whether a day of the month or of the week suffices, as both are named."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the schedule that `text` means.

        Raises:
            ValueError: it is none, or no day is ever due.
        """
        parts = text.upper().split()
        if len(parts) != len(_FIELDS):
            raise ValueError("has not five fields: write minute, hour, day, month and weekday, such as 0 3 * * *")
        read = [_field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
        minutes, hours, days, months, weekdays = read
        schedule = cls(
            minutes, hours, days, months, frozenset(day % 7 for day in weekdays), "*" not in {parts[2][0], parts[4][0]}
        )
        longest = max(monthrange(2024, month)[1] for month in months)
        if not schedule.either and min(days) > longest:
            raise ValueError("names a day that no month has")
        return schedule

    def after(self, moment: datetime) -> datetime:
        """Return the first time after `moment` at which it is due."""
        moment = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        day = moment.replace(hour=0, minute=0)
        for offset in range(_YEARS * 366):
            date = day + timedelta(days=offset)
            if date.month not in self.months or not self._has_day(date):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    due = date.replace(hour=hour, minute=minute)
                    if due >= moment:
                        return due
        raise AssertionError("some day is due")

    def _has_day(self, date: datetime) -> bool:
        of_month, of_week = date.day in self.days, date.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either else of_month and of_week


def _field(text: str, name: str, least: int, most: int, names: tuple[str, ...]) -> frozenset[int]:
    found = set[int]()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not a {name}: write a number, 1-5, */10 or a list of them")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        if first == "*":
            low, high = least, most
        else:
            low = _number(first, name, names)
            high = _number(last, name, names) if last else (most if match["step"] else low)
        if not least <= low <= high <= most or step == 0 or (first == "*" and last):
            raise ValueError(f"{part!r} is not a {name}: it goes from {least} to {most}")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(text: str, name: str, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + (1 if names is _MONTHS else 0)
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a {name}")
    return int(text)
