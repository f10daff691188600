"""Runs that time starts (`rebuild.schedule`, `rebuild.retryInterval`), and the window that others wait for."""

from datetime import datetime, timedelta

from multiarchbuild.api.cron import Schedule
from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.status import Result, RunStatus

from .context import Context
from .windows import is_open, opens_at

_LONGEST = timedelta(days=1)
"""Between a run that failed and the next."""
_DOUBLINGS = 12


def may_start(context: Context) -> bool:
    """Return whether a run may start now that nobody has asked for."""
    return is_open(context.build.spec.rebuild.window, context.now)


def opens(context: Context, moment: datetime) -> datetime:
    """Return when one may, from `moment` on."""
    return opens_at(context.build.spec.rebuild.window, moment)


def scheduled_at(context: Context, run: RunStatus) -> datetime | None:
    """Return when the schedule has a run follow on `run`, which has ended."""
    text = context.build.spec.rebuild.schedule
    if text is None:
        return None
    schedule = Schedule.parse(text)
    due = schedule.after(run.started_at)
    later = context.policy.rebuild.spread(context.build.metadata.uid, schedule.after(due) - due)
    return opens(context, due + later)


def retried_at(context: Context, run: RunStatus) -> datetime | None:
    """Return when a run follows on `run` because that failed for its infrastructure."""
    interval = context.build.spec.rebuild.retry_interval
    failed = run.result is Result.FAILED and run.reason is not None and run.reason.retryable
    if interval is None or not failed or run.finished_at is None:
        return None
    span = context.policy.rebuild.interval(parse_duration(interval)) * 2 ** min(run.retry, _DOUBLINGS)
    return opens(context, run.finished_at + min(span, max(_LONGEST, parse_duration(interval))))
