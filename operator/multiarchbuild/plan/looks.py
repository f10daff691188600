"""Looks between two runs at what may have changed: one pod at a time, which finds something or fails.

Level-triggered like all else: when the next look is due follows from status, and what a look has found from its pod.
A look that fails changes nothing about the image, so that Ready stays what it is; status says why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, MultiArchBuild
from multiarchbuild.api.results import Failure, Resolved
from multiarchbuild.api.status import LookStatus, RunStatus

from .actions import Action, EnsureInputs, StartResolve
from .builds import queued
from .children import Pod, Role
from .context import Context, earliest
from .identity import digest, fingerprint, step_name
from .outcome import Going, outcome

_PAUSE = timedelta(seconds=5)
_SPREAD = 10
"""Seconds."""
_DEADLINE = 300
"""Seconds that a look may take: git gives up on a silent server long before."""
_PENDING = timedelta(seconds=_DEADLINE)
"""How long its pod may be without a node: that is before the deadline begins."""
WAITS = frozenset({Reason.PENDING, Reason.QUEUED, Reason.UNSCHEDULABLE})
"""Why a look goes on: it has not failed."""
_OF_THE_POD = WAITS | {Reason.POD_REJECTED}
"""What is over once its pod is there. Why the look before it failed stays until this one has ended."""

StatusT = TypeVar("StatusT", bound=LookStatus)


@dataclass(frozen=True, slots=True)
class Look(Generic[StatusT]):
    """Where the looks stand after this decision."""

    status: StatusT
    came: Resolved | None = None
    """What the one has found that has ended."""
    pod: str = ""
    """The pod that has found it."""
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


def look(
    context: Context,
    run: RunStatus | None,
    status: StatusT,
    role: Role,
    *,
    due: Callable[[StatusT], datetime | None],
    others: int,
    **wanted: Any,
) -> Look[StatusT]:
    """Return where the looks stand; there are none while a run goes on, and none before the first.

    Args:
        context: Of the build.
        run: The last one.
        status: Where they stood.
        role: Of their pods.
        due: When the next one is, by where they stand.
        others: How many other builds are looked at: where that is all that the policy allows, this one waits.
        wanted: What is looked at, as fields of `StartResolve`.
    """
    if run is None or run.result is None or context.build.spec.suspend or _outdated(context, run):
        return Look(update(status, pod=None))
    number = status.checks + 1
    pod = next((pod for pod in context.pods_of(run.id, role) if pod.attempt == number), None)
    if pod is not None:
        return _with_pod(context, status, pod, due)
    if status.pod is not None:
        lost = Failure(reason=Reason.BUILDER_LOST, message=f"pod {status.pod} disappeared before its step ended")
        return _failed(context, status, lost, due)
    at = due(status)
    if at is None or context.now < at:
        return Look(status, wake_at=at)
    if others >= context.policy.polling.concurrent:
        return Look(status, wake_at=context.now + _ask_again(context))
    child = context.pod_to_create(run.id, step_name(context.build, run.id, role, number))
    if child.reason:
        # Of the image it says nothing: it is what was asked for, be it looked at or not.
        waits = _waits(status, child.reason, child.message)
        return Look(waits, wake_at=context.now + child.ask_after)
    if child.failed:
        return Look(status)
    inputs = context.inputs(run.id).name
    start = StartResolve(child.name, run.id, number, inputs, _DEADLINE, role, **wanted)
    missing = all(existing.name != inputs for existing in context.config_maps)
    actions = (EnsureInputs(name=inputs, run_id=run.id, parents=run.parents), start) if missing else (start,)
    allowed = {"reason": None, "message": None} if status.reason in _OF_THE_POD else {}
    return Look(update(status, pod=start.name, requested=None, **allowed), actions=actions)


def may_be_asked(build: MultiArchBuild) -> bool:
    """Return whether anybody has ever asked for a look at what this build is made from."""
    return bool(build.metadata.annotations.get(FLUX_RECONCILE_ANNOTATION))


def request(build: MultiArchBuild) -> str | None:
    """Return the value of the annotation that asks for a look, where it is a new one."""
    asked = build.metadata.annotations.get(FLUX_RECONCILE_ANNOTATION, "")[:64]
    return asked if asked and asked != build.status.last_handled_reconcile_at else None


def update(status: StatusT, **fields: object) -> StatusT:
    """Return `status` with other `fields`."""
    return status.model_copy(update=fields)


def _outdated(context: Context, run: RunStatus) -> bool:
    """Return whether another run is wanted anyway, as of what is looked at."""
    return run.inputs != fingerprint(context.build.spec).inputs


def _ask_again(context: Context) -> timedelta:
    """Return when to ask again whether a look may start: another time for each build, so that not all ask at once."""
    return _PAUSE + timedelta(seconds=int(digest(context.build.metadata.uid, str(context.now))[:4], 16) % _SPREAD)


def _with_pod(context: Context, status: StatusT, pod: Pod, due: Callable[[StatusT], datetime | None]) -> Look[StatusT]:
    came = outcome(pod, context.now)
    if isinstance(came, Going) and pod.node is None and context.now >= pod.created_at + _PENDING:
        # It holds one of the looks that the policy lets go on at a time.
        why = queued(pod) if pod.gates else pod.unschedulable or "no scheduler has said why"
        message = f"pod {pod.name} has got no node within {int(_PENDING.total_seconds() // 60)} minutes: {why}"
        came = Failure(reason=Reason.SCHEDULING_TIMED_OUT, message=message)
    match came:
        case Going(look_again=look_again):
            given_up = pod.created_at + _PENDING if pod.node is None else None
            return Look(_waiting(status, pod), wake_at=earliest(look_again, given_up))
        case Resolved():
            # Seen now: by the clock of a node the next look might be due at once, again and again.
            ended = update(
                status, last_checked_at=context.now, checks=status.checks + 1, pod=None, reason=None, message=None
            )
            return Look(ended, came, pod.name, wake_at=due(ended))
        case Failure():
            return _failed(context, status, came, due)
        case _:
            wrong = Failure(reason=Reason.STEP_FAILED, message=f"pod {pod.name} reported the result of another step")
            return _failed(context, status, wrong, due)


def _waiting(status: StatusT, pod: Pod) -> StatusT:
    """Return the status while `pod` goes on."""
    status = update(status, pod=pod.name)
    if pod.gates:
        return _waits(status, Reason.QUEUED, queued(pod))
    if pod.unschedulable:
        return _waits(status, Reason.UNSCHEDULABLE, pod.unschedulable)
    return update(status, reason=None, message=None) if status.reason in _OF_THE_POD else status


def _waits(status: StatusT, reason: Reason, message: str) -> StatusT:
    """Return the status of a look that waits, or is refused, for `reason`."""
    failed_before = status.reason is not None and status.reason not in _OF_THE_POD
    return status if failed_before and reason in WAITS else update(status, reason=reason, message=message)


def _failed(
    context: Context, status: StatusT, failure: Failure, due: Callable[[StatusT], datetime | None]
) -> Look[StatusT]:
    ended = update(
        status,
        last_checked_at=context.now,
        checks=status.checks + 1,
        pod=None,
        reason=failure.reason,
        message=failure.message,
    )
    return Look(ended, wake_at=due(ended))
