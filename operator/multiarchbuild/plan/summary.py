"""Status as a whole, summarised here and nowhere else: conditions, columns of kubectl get, the limit of its size."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from multiarchbuild.api.conditions import Condition, ConditionType, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import (
    MAX_BYTES,
    FailedAttempt,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceCheck,
    Status,
    StepStatus,
)

MAX_MESSAGE = 2048
"""Characters of a message in status, and bytes that it has there as JSON."""
_MESSAGES = 8192
"""Bytes of the messages of all platforms together, as JSON."""
MAX_LOG_TAIL = 4096
"""Characters of a log tail in status."""
_TRUNCATED = "… (cut)"


def conditions(
    old: tuple[Condition, ...],
    run: RunStatus | None,
    generation: int,
    now: datetime,
    *,
    suspended: bool,
    current: bool = True,
    note: str = "",
) -> tuple[Condition, ...]:
    """Return the conditions for `run` by the rules of kstatus; `current`: it is of the spec as it is now.

    `note` is added to what is said of a run that succeeded.

    Ready is Unknown while a run goes on, False as soon as it can't succeed any more, True once its image is
    published. A failed run is Stalled: nothing happens before somebody changes or requests something.
    """

    def condition(
        kind: ConditionType, status: Literal["True", "False", "Unknown"], reason: Reason, message: str
    ) -> Condition:
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=now,
        )

    if run is None:
        message = "spec.suspend is true: no run is started"
        reason = Reason.SUSPENDED if suspended else Reason.PENDING
        return merge(old, (condition(ConditionType.READY, "False", reason, message),))
    new: tuple[Condition, ...]
    reason, message = run.reason or Reason.PENDING, run.message or "the run has been started"
    match run.result:
        case None:
            failed = next((entry for entry in run.platforms if entry.phase is Phase.FAILED), None)
            ready = (
                condition(ConditionType.READY, "Unknown", reason, message)
                if failed is None
                else condition(
                    ConditionType.READY,
                    "False",
                    failed.reason or reason,
                    f"{failed.platform}: {failed.message}",
                )
            )
            new = (
                ready,
                condition(ConditionType.RECONCILING, "True", reason, message),
                condition(ConditionType.SUCCEEDED, "Unknown", reason, message),
            )
        case Result.SUCCEEDED:
            waits = "spec was edited while suspend is true: set it to false to build what it says now"
            noted = shorten(f"{message}; {note}", MAX_MESSAGE) if note else message
            new = (
                condition(ConditionType.READY, "True", reason, noted)
                if current
                else condition(ConditionType.READY, "False", Reason.SUSPENDED, waits),
                condition(ConditionType.SUCCEEDED, "True", reason, message),
            )
        case Result.FAILED | Result.CANCELLED | Result.SUPERSEDED:
            new = (
                condition(ConditionType.READY, "False", reason, message),
                condition(ConditionType.STALLED, "True", reason, message),
                condition(ConditionType.SUCCEEDED, "False", reason, message),
            )
    return merge(old, new)


def waiting(old: tuple[Condition, ...], message: str, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Return the conditions of a build whose next run waits for its source; what is known of the last run stays."""
    kept = tuple(condition for condition in old if condition.type == ConditionType.SUCCEEDED)
    new = tuple(
        Condition(
            type=kind,
            status=status,
            reason=Reason.SOURCE_NOT_READY,
            message=shorten(message, MAX_MESSAGE),
            observed_generation=generation,
            last_transition_time=now,
        )
        for kind, status in ((ConditionType.READY, "False"), (ConditionType.RECONCILING, "True"))
    )
    return (*merge(old, new), *kept)


def platforms_column(run: RunStatus | None, wanted: int) -> str:
    """Return `done/wanted` platforms."""
    done = sum(entry.phase is Phase.SUCCEEDED for entry in run.platforms) if run else 0
    return f"{done}/{wanted}"


def duration_column(run: RunStatus | None) -> str | None:
    """Return how long an ended run took, such as `1m12s`."""
    if run is None or run.finished_at is None:
        return None
    minutes, seconds = divmod(int((run.finished_at - run.started_at) / timedelta(seconds=1)), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


def bounded(run: RunStatus) -> RunStatus:
    """Return `run` with its messages and log tails within the bounds of the schema: steps and kubelets know none.

    Messages are measured in bytes, so that `fit` need not cut them: what is said of a pod that goes on is made anew at
    each look, and would be cut differently once those beside it have been cut.
    """
    each = min(MAX_MESSAGE, _MESSAGES // max(len(run.platforms), 1))
    return _cut_messages(_cut_tails(run, MAX_LOG_TAIL), within, MAX_MESSAGE, each, share=4)


def bounded_check(check: SourceCheck | None) -> SourceCheck | None:
    """Return `check` with its message within the bounds of the schema."""
    if check is None or not check.message:
        return check
    return check.model_copy(update={"message": shorten(check.message, MAX_MESSAGE)})


def fit(status: Status) -> Status:
    """Return `status` cut to less than MAX_BYTES: the log tails to half, and half again, at last the messages too."""
    room, run = 2048, status.run
    while _size(status) >= MAX_BYTES and run is not None and room >= 1:
        run = _cut_tails(run, room)
        if room <= 256:  # noqa: PLR2004 - less of a log tells nothing
            run = _cut_messages(run, shorten, room, room)
            status = status.model_copy(
                update={"conditions": tuple(_cut(each, shorten, room) for each in status.conditions)}
            )
        status = status.model_copy(update={"run": run})
        room //= 2
    return status


def _cut_tails(run: RunStatus, room: int) -> RunStatus:
    def cut(entry: PlatformStatus) -> PlatformStatus:
        return entry.model_copy(update={"log_tail": entry.log_tail[-room:]}) if entry.log_tail else entry

    return run.model_copy(update={"platforms": tuple(map(cut, run.platforms))})


_Cutter = Callable[[str, int], str]
"""Returns a text cut to some room: `shorten` or `within`."""


def _cut_messages(run: RunStatus, cutter: _Cutter, room: int, each: int, *, share: int = 1) -> RunStatus:
    """Return `run` with its messages cut to `room`, of a platform to `each`; earlier tries get one part in `share`."""
    steps = {"resolve": run.resolve, "publish": run.publish}
    return _cut(run, cutter, room).model_copy(
        update={
            "platforms": tuple(_cut_tried(entry, cutter, each, share) for entry in run.platforms),
            **{name: _cut_tried(step, cutter, room, share) for name, step in steps.items() if step},
        }
    )


_Tried = TypeVar("_Tried", StepStatus, PlatformStatus)


def _cut_tried(tried: _Tried, cutter: _Cutter, room: int, share: int) -> _Tried:
    tries = tuple(_cut(each, cutter, room // share) for each in tried.failed_attempts)
    return _cut(tried, cutter, room).model_copy(update={"failed_attempts": tries})


_Told = TypeVar("_Told", Condition, RunStatus, StepStatus, PlatformStatus, FailedAttempt)


def _cut(told: _Told, cutter: _Cutter, room: int) -> _Told:
    return told.model_copy(update={"message": cutter(told.message, room)}) if told.message else told


def shorten(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters, and say so where it was cut."""
    return text if len(text) <= limit else text[: max(limit - len(_TRUNCATED), 0)] + _TRUNCATED[:limit]


def within(text: str, room: int) -> str:
    """Return `text` in at most `room` bytes of JSON, and say so where it was cut."""
    if len(text) * _WIDEST <= room or _json_bytes(text) <= room:
        return text
    left = max(room - _json_bytes(_TRUNCATED), 0)
    for length, character in enumerate(text):
        left -= _json_bytes(character)
        if left < 0:
            return text[:length] + _TRUNCATED
    return text


_WIDEST = 6
"""Bytes of a control character in JSON, such as \\u001b."""


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def _size(status: Status) -> int:
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())
