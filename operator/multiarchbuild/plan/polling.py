"""Looks at a source between runs: each `source.git.interval` or `source.oci.interval` the resolve step, nothing else.

Level-triggered like all else: when the next look is due follows from status, and what a look has found from its pod.
A look that fails changes nothing about the image, so that Ready stays what it is; status.source says why.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Failure, Resolved
from multiarchbuild.api.status import RunStatus, SourceCheck, SourceStatus

from .actions import Action, EnsureInputs, StartResolve
from .children import Pod, Role
from .context import Context
from .identity import fingerprint, inputs_name, step_name
from .outcome import Going, outcome
from .sources import differ, poll_interval, status_of

_DEADLINE = 300
"""Seconds that a look may take: git gives up on a silent server long before."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a branch or tag means that has moved since the last run."""

    source: SourceStatus
    pod: str
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """Where the looks at the source stand after this decision."""

    status: SourceCheck | None = None
    found: Found | None = None
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


def advance(context: Context, run: RunStatus | None, status: SourceCheck | None) -> Check:
    """Return where the looks at the source stand; there are none while a run goes on, and none before the first."""
    interval = poll_interval(context.build.spec)
    if interval is None:
        return Check()
    status = status or SourceCheck()
    if run is None or run.result is None or context.build.spec.suspend or _outdated(context, run):
        return Check(_update(status, pod=None))
    number = status.checks + 1
    pod = context.pod(run.id, Role.CHECK)
    if pod is not None and pod.attempt == number:
        return _with_pod(context, run, status, pod, interval)
    if status.pod is not None:
        lost = Failure(reason=Reason.BUILDER_LOST, message=f"pod {status.pod} disappeared before its step ended")
        return _ended(run, _failed(status, lost, context.now), interval)
    due = _due(run, status, interval)
    if context.now < due:
        return Check(status, wake_at=due)
    inputs = inputs_name(context.build, run.id)
    start = StartResolve(
        name=step_name(context.build, run.id, Role.CHECK, number),
        run_id=run.id,
        attempt=number,
        inputs=inputs,
        deadline=_DEADLINE,
        role=Role.CHECK,
    )
    actions = (EnsureInputs(name=inputs, run_id=run.id), start)
    return Check(_update(status, pod=start.name), actions=actions)


def answered(check: Check) -> Check:
    """Return what is left of the looks when a run starts: they are counted anew."""
    return Check(_update(check.status, checks=0, pod=None) if check.status else None)


def remembered(check: Check, before: SourceCheck | None) -> Check:
    """Return `check` as if the look had not ended, where it has found something for which no run may start yet.

    Its pod stays, and is read again when one may.
    """
    if check.found is None:
        return check
    return Check(_update(before or SourceCheck(), pod=check.found.pod))


def _outdated(context: Context, run: RunStatus) -> bool:
    """Return whether another run is wanted anyway, as of what is looked at."""
    return run.inputs != fingerprint(context.build.spec).inputs


def _due(run: RunStatus, status: SourceCheck, interval: timedelta) -> datetime:
    """Return when the next look is due: counted from when the last one ended, whatever came of it."""
    return max(run.started_at, status.last_checked_at or run.started_at) + interval


def _with_pod(context: Context, run: RunStatus, status: SourceCheck, pod: Pod, interval: timedelta) -> Check:
    came = outcome(pod, context.now)
    finished = (pod.ended.finished_at if pod.ended else None) or context.now
    match came:
        case Going(look_again=look_again):
            return Check(_waiting(status, pod), wake_at=look_again)
        case Resolved(source=source):
            found = status_of(source)
            ended = SourceCheck(
                last_checked_at=finished, commit=found.commit, digest=found.digest, checks=status.checks + 1
            )
            moved = Found(found, pod.name, finished) if differ(found, run.source) else None
            return _ended(run, ended, interval, moved)
        case Failure():
            return _ended(run, _failed(status, came, finished), interval)
        case _:
            wrong = Failure(reason=Reason.STEP_FAILED, message=f"pod {pod.name} left the result of another step")
            return _ended(run, _failed(status, wrong, finished), interval)


def _waiting(status: SourceCheck, pod: Pod) -> SourceCheck:
    """Return the status while `pod` goes on. Why the look before it failed stays until this one has ended."""
    if pod.unschedulable:
        return _update(status, pod=pod.name, reason=Reason.UNSCHEDULABLE, message=pod.unschedulable)
    if status.reason is Reason.UNSCHEDULABLE:
        return _update(status, pod=pod.name, reason=None, message=None)
    return _update(status, pod=pod.name)


def _failed(status: SourceCheck, failure: Failure, finished: datetime) -> SourceCheck:
    return SourceCheck(
        last_checked_at=finished,
        commit=status.commit,
        digest=status.digest,
        checks=status.checks + 1,
        reason=failure.reason,
        message=failure.message,
    )


def _ended(run: RunStatus, status: SourceCheck, interval: timedelta, found: Found | None = None) -> Check:
    return Check(status, found=found, wake_at=_due(run, status, interval))


def _update(status: SourceCheck, **fields: object) -> SourceCheck:
    return status.model_copy(update=fields)
