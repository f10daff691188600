"""Spans of time as Go and Kubernetes write them: `90s`, `30m`, `1h30m`."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .schema import Rule, matches

_PATTERN = "([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?"


def _understood(text: str) -> str:
    if not re.fullmatch(_PATTERN, text):
        raise PydanticCustomError("duration_unknown", "is not a duration of hours, minutes and seconds")
    return text


Duration = Annotated[
    str,
    Field(min_length=2, max_length=24),
    AfterValidator(_understood),
    matches(_PATTERN, "a duration consists of hours, minutes and seconds: write 90s, 30m or 1h30m"),
]


Expiry = Annotated[
    Duration,
    Rule(
        f"!self.matches(r'^{_PATTERN}$') || duration(self) >= duration('1h')",
        "must be at least 1h: a run that goes on may need what it deletes",
    ),
]
"""How long something is kept that nothing uses any more."""


@lru_cache(256)  # a look at a build reads a dozen, of a few that there are
def parse_duration(text: str) -> timedelta:
    """Return the span of time that `text` names.

    Raises:
        ValueError: `text` is not hours, minutes and seconds in this order, each at most once.
    """
    match = re.fullmatch(_PATTERN, text)
    if not match or not text:
        raise ValueError(f"{text!r} is not a duration: write hours, minutes and seconds, such as 90s, 30m or 1h30m")
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(span: timedelta) -> str:
    """Return `span` as `parse_duration` reads it, such as `1h30m`."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if amount)
    return "".join(parts) or "0s"
