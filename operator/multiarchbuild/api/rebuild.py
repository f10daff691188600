"""`spec.rebuild`: what starts a run beside the spec, its source and a person."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from .base import Model
from .cron import Schedule
from .durations import Duration
from .schema import SET, Rule, matches


class Day(StrEnum):
    """A day of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


class Window(Model):
    """When runs may start that nobody has asked for, each day or on some days."""

    days: Annotated[tuple[Day, ...], Field(max_length=7), SET] = ()
    """Days on which it begins, such as Mon; by default each day."""
    start: Annotated[
        str,
        Field(min_length=5, max_length=5),
        matches("([01][0-9]|2[0-3]):[0-5][0-9]", "must be a time of day in UTC, such as 22:00"),
    ]
    """When it begins, in UTC, such as 22:00."""
    duration: Annotated[
        Duration,
        Rule(
            "!self.matches(r'^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || duration(self) >= duration('1m') && "
            "duration(self) <= duration('24h')",
            "must be from 1m to 24h",
        ),
    ]
    """How long it is open, such as 6h; also beyond midnight."""


Patience = Annotated[
    Duration,
    Rule(
        "!self.matches(r'^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || duration(self) >= duration('1m')",
        "must be at least 1m",
    ),
]
"""A time between two runs, or two looks, that nobody has asked for."""


def _is_a_schedule(text: str) -> str:
    Schedule.parse(text)
    return text


class OnBaseImage(Model):
    """Whether a base image that has moved starts a run."""

    interval: Patience
    """How often the registries are asked what the tags of base images mean, such as 24h. What the Dockerfile pins by a
    digest is never asked for."""
    window: Window | None = None
    """When they are asked, and a run may start; by default at any time."""


class Rebuild(Model):
    """What starts a run beside the spec, its source and a person."""

    on_base_image: OnBaseImage | None = None
    """Whether a base image that has moved starts a run; by default none does."""
    schedule: (
        Annotated[
            str,
            Field(min_length=9, max_length=100),
            AfterValidator(_is_a_schedule),
            matches(
                r"([0-9A-Za-z*/,-]+ ){4}[0-9A-Za-z*/,-]+",
                "must be a schedule as of cron, in UTC: minute, hour, day, month and weekday, such as 0 3 * * Mon-Fri",
            ),
        ]
        | None
    ) = None
    """When a run starts in any case, as cron writes it, in UTC, such as 0 3 * * Mon-Fri; by default never. It is
    counted from the start of the last run: one that was missed is made up for once."""
    window: Window | None = None
    """When runs may start that nobody has asked for: for a new commit or revision, another image of a base or of
    another MultiArchBuild, by schedule or after retryInterval. By default at any time. Who changes the spec, or asks
    for a look or a run, waits for no window."""
    retry_interval: Patience | None = None
    """When another run starts after one that failed for its infrastructure, not for what is built, such as 30m; after
    each further one in a row twice as late, at most a day. By default none does."""
