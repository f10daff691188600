"""Status as a whole, summarised here and nowhere else: conditions, columns of kubectl get, the limit of its size."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeVar

from multiarchbuild.api.conditions import Condition, ConditionType, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import (
    MAX_BYTES,
    Columns,
    FailedAttempt,
    ImageStatus,
    LookStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    Status,
    StepStatus,
)

from .admission import Blocker
from .not_created import frees_itself

MAX_MESSAGE = 2048
"""Characters of a message in status, and bytes that it has there as JSON."""
_MESSAGES = 8192
"""Bytes of the messages of all platforms together, as JSON."""
MAX_LOG_TAIL = 4096
"""Characters of a log tail in status."""
_TRUNCATED = "… (cut)"

_Truth = Literal["True", "False", "Unknown"]
_Said = tuple[ConditionType, _Truth, Reason, str]
"""What a condition says: its type, its status, why, and what happened."""


class Wait(NamedTuple):
    """What is missing before the next run can start."""

    reason: Literal[Reason.SOURCE_NOT_READY, Reason.PARENT_NOT_READY]
    message: str


def conditions(
    old: tuple[Condition, ...],
    run: RunStatus | None,
    generation: int,
    now: datetime,
    *,
    suspended: bool = False,
    current: bool = True,
    note: str = "",
    blocker: Blocker | None = None,
    waits_for: Wait | None = None,
    run_follows: bool = False,
    retried_at: datetime | None = None,
    conflict: str = "",
) -> tuple[Condition, ...]:
    """Return the conditions by the rules of kstatus.

    Ready is Unknown while a run goes on, False as soon as it can't succeed any more, True once its image is
    published. A failed run is Stalled: nothing happens before somebody changes or requests something.

    Args:
        old: Those of before.
        run: The current or the last run.
        generation: Of the spec that they speak of.
        now: When they change.
        suspended: No run may start because spec.suspend is true.
        current: `run` is of the spec as it is now.
        note: Added to what is said of a run that succeeded.
        blocker: What keeps the next run from starting.
        waits_for: What is missing before the next run can start.
        run_follows: Another run starts at the next look.
        retried_at: When another one starts because `run` failed for its infrastructure.
        conflict: Which tags are moved by another build too.
    """

    def condition(kind: ConditionType, status: _Truth, reason: Reason, message: str) -> Condition:
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=shorten(message, MAX_MESSAGE),
            observed_generation=generation,
            last_transition_time=now,
        )

    if blocker is not None and (run is None or run.result is not None):
        queued = blocker.reason is Reason.QUEUED
        kind = ConditionType.RECONCILING if queued else ConditionType.STALLED
        said = _unready("Unknown" if queued else "False", kind, blocker.reason, blocker.message)
    elif waits_for:
        said = _unready("False", ConditionType.RECONCILING, *waits_for)
    elif run_follows:
        message = "the last run has ended; the run that was requested meanwhile starts now"
        said = _unready("Unknown", ConditionType.RECONCILING, Reason.PENDING, message)
    elif run is not None:
        said = _of_run(run, current=current, note=note, retried_at=retried_at)
    else:
        reason = Reason.SUSPENDED if suspended else Reason.PENDING
        said = ((ConditionType.READY, "False", reason, "spec.suspend is true: no run is started"),)
    if run is not None:
        said = (*said, (ConditionType.SUCCEEDED, *_succeeded(run)))
    # As of a spec that can't be read: what was said of the last run stays.
    kept = tuple(entry for entry in old if entry.type == ConditionType.SUCCEEDED) if run is None and blocker else ()
    shared = (condition(ConditionType.TAG_CONFLICT, "True", Reason.TAG_CONFLICT, conflict),) if conflict else ()
    return merge(old, (*(condition(*each) for each in said), *kept, *shared))


def _unready(ready: _Truth, kind: ConditionType, reason: Reason, message: str) -> tuple[_Said, ...]:
    """Return what is said of a build for a reason that `kind` has too."""
    return (ConditionType.READY, ready, reason, message), (kind, "True", reason, message)


def _of_run(run: RunStatus, *, current: bool, note: str, retried_at: datetime | None) -> tuple[_Said, ...]:
    """Return what is said of a build by how its run goes, or has ended."""
    _, reason, message = _succeeded(run)
    match run.result:
        case None if reason is Reason.POD_REJECTED:
            kind = ConditionType.RECONCILING if _frees_itself(run) else ConditionType.STALLED
            return _unready("False", kind, reason, message)
        case None:
            ready, *beside = _unready("Unknown", ConditionType.RECONCILING, reason, message)
            failed = next((entry for entry in run.platforms if entry.phase is Phase.FAILED), None)
            if failed is not None:
                why = f"{failed.platform}: {failed.message}"
                ready = (ConditionType.READY, "False", failed.reason or reason, why)
            return (ready, *beside)
        case Result.SUCCEEDED if current:
            return ((ConditionType.READY, "True", reason, f"{message}; {note}" if note else message),)
        case Result.SUCCEEDED:
            waits = "spec was edited while suspend is true: set it to false to build what it says now"
            return ((ConditionType.READY, "False", Reason.SUSPENDED, waits),)
        case Result.FAILED | Result.CANCELLED | Result.SUPERSEDED:
            kind, why_so, said = _after(reason, message, retried_at)
            return (ConditionType.READY, "False", reason, said), (kind, "True", why_so, said)
        case _:
            return ((ConditionType.READY, "Unknown", reason, message),)


def _frees_itself(run: RunStatus) -> bool:
    """Return whether what is refused finds room without anybody's action.

    The run's own message may have been cut before it says so: what others have failed for may come first.
    """
    steps = (run.resolve, *run.platforms, run.publish)
    refused = (step.message for step in steps if step is not None and step.reason is Reason.POD_REJECTED)
    return any(frees_itself(message or "") for message in (run.message, *refused))


def _succeeded(run: RunStatus) -> tuple[_Truth, Reason, str]:
    """Return what Succeeded says of `run`, whatever the build waits for beside: status, reason and message."""
    reason, message = run.reason or Reason.PENDING, run.message or "the run has been started"
    match run.result:
        case None:
            return "Unknown", reason, message
        case Result.SUCCEEDED:
            return "True", reason, message
        case Result.FAILED | Result.CANCELLED | Result.SUPERSEDED:
            return "False", reason, message
        case _:
            unknown = f"run {run.id} ended as {run.result}, which a newer version of the operator wrote: {message}"
            return "Unknown", reason, unknown


def _after(reason: Reason, message: str, retried_at: datetime | None) -> tuple[ConditionType, Reason, str]:
    """Return which condition beside Ready a run has that did not succeed: whether anybody has to act."""
    if retried_at is None:
        return ConditionType.STALLED, reason, message
    said = f"{message}; another run starts at {retried_at:%Y-%m-%dT%H:%M:%SZ} (rebuild.retryInterval)"
    return ConditionType.RECONCILING, Reason.RETRYING, said


def unreadable_spec(
    status: Status,
    reason: Literal[Reason.INVALID_SPEC, Reason.OPERATOR_OUTDATED],
    message: str,
    generation: int,
    now: datetime,
) -> Status:
    """Return the status of a build whose spec can't be read, for the reasons in `message`."""
    blocker = Blocker(reason, message)
    stated = conditions(status.conditions, None, generation, now, blocker=blocker)
    return fit(status.model_copy(update={"observed_generation": generation, "conditions": stated}))


def columns(run: RunStatus | None, image: ImageStatus | None, wanted: int) -> Columns:
    """Return what `kubectl get` prints of a build that wants so many platforms."""
    return Columns(
        platforms=platforms_column(run, wanted),
        digest=image.digest.removeprefix("sha256:")[:12] if image else None,
        duration=duration_column(run),
    )


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


_Look = TypeVar("_Look", bound=LookStatus)


def bounded_check(check: _Look | None) -> _Look | None:
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
    cut = _cut(tried, cutter, room)
    if not tried.failed_attempts:
        return cut
    tries = tuple(_cut(each, cutter, room // share) for each in tried.failed_attempts)
    return cut.model_copy(update={"failed_attempts": tries})


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
