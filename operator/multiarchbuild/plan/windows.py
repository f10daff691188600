"""Times at which runs may start that nobody has asked for (`spec.rebuild`), in UTC."""

from datetime import UTC, datetime, timedelta

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.rebuild import Day, Window

_DAYS = tuple(Day)


def opens_at(window: Window | None, moment: datetime) -> datetime:
    """Return when `window` is open from `moment` on: `moment` itself where it is then, or where there is no window."""
    if window is None:
        return moment
    hour, minute = (int(part) for part in window.start.split(":"))
    moment = moment.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    # One that has begun yesterday may still be open.
    for offset in range(-1, len(_DAYS) + 1):
        begins = midnight + timedelta(days=offset, hours=hour, minutes=minute)
        if window.days and _DAYS[begins.weekday()] not in window.days:
            continue
        if moment < begins + parse_duration(window.duration):
            return max(begins, moment)
    raise AssertionError("a week has all days")


def is_open(window: Window | None, moment: datetime) -> bool:
    """Return whether a run may start at `moment`."""
    return opens_at(window, moment) <= moment
