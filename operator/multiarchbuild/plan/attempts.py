"""The tries of a step, be it resolve, the build of a platform, or publish: how one stands, and when the next is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from multiarchbuild.api import limits
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Failure, Published, Resolved
from multiarchbuild.api.status import FailedAttempt, Mode, Phase, PlatformStatus, StepStatus

from .children import Pod
from .context import Context, retry_at
from .outcome import Going, outcome, refusal

StepT = TypeVar("StepT", StepStatus, PlatformStatus)
ResultT = TypeVar("ResultT", Resolved, Built, Published)


@dataclass(frozen=True, slots=True)
class Reading(Generic[StepT, ResultT]):
    """What the pods of a step say."""

    step: StepT
    result: ResultT | None = None
    """What it has come to, if it has succeeded."""
    pod: Pod | None = None
    """The pod that goes on, or that has succeeded."""
    look_again: datetime | None = None
    """When waiting for the pod any longer makes no sense, if it makes no progress."""


def read(context: Context, step: StepT, pods: Sequence[Pod], wanted: type[ResultT]) -> Reading[StepT, ResultT]:
    """Return how `step` stands by its `pods`. Whichever of them has succeeded counts, whatever was thought of it.

    A pod of an earlier attempt may have been given up for lost, or one with another placement may have taken its place.
    """
    pods = sorted(pods, key=_age, reverse=True)
    for pod in pods:
        came = outcome(pod, context.now)
        if isinstance(came, wanted):
            return Reading(_succeeded(context, _adopted(step, pod)), came, pod)
    if has_failed(step):
        return Reading(step)
    newest = pods[0] if pods else None
    if newest is None or newest.attempt < step.attempt or (awaits_retry(step) and newest.attempt == step.attempt):
        if step.attempt == 0 or awaits_retry(step):
            return Reading(step)
        lost = Failure(reason=Reason.BUILDER_LOST, message=f"pod {step.pod} disappeared before its step ended")
        return Reading(failed(context, step, lost))
    seen = _adopted(step, newest)
    came = refusal(newest, context.nodes) or outcome(newest, context.now)
    match came:
        case Going(look_again=look_again):
            return Reading(seen, None, newest, look_again)
        case Failure():
            return Reading(failed(context, seen, came))
        case _:
            wrong = Failure(reason=Reason.STEP_FAILED, message=f"pod {newest.name} reported the result of another step")
            return Reading(failed(context, seen, wrong))


def failed(context: Context, step: StepT, failure: Failure) -> StepT:
    """Return `step` when its attempt has failed: it is tried again, or it has failed for good."""
    # Seen now: the clock of a node may be wrong, and the next try would come at once, or never.
    finished = context.now
    fields: dict[str, object] = {"finished_at": finished}
    if context.retries(failure, step.attempt):
        due = f"next try at {retry_at(finished, step.attempt):%H:%M:%S} UTC"
        tried = FailedAttempt(
            attempt=step.attempt,
            reason=failure.reason,
            message=failure.message[: limits.FAILED_ATTEMPT],
            node=step.node if isinstance(step, PlatformStatus) else None,
            finished_at=finished,
        )
        fields["reason"] = Reason.RETRYING
        fields["message"] = f"attempt {step.attempt} failed: {failure.reason}: {failure.message}; {due}"
        fields["failed_attempts"] = (*step.failed_attempts, tried)[-limits.FAILED_ATTEMPTS :]
    else:
        fields |= {"reason": failure.reason, "message": failure.message}
    if isinstance(step, PlatformStatus):
        fields["phase"] = Phase.PENDING if "failed_attempts" in fields else Phase.FAILED
        fields["log_tail"] = failure.log_tail or None
    return step.model_copy(update=fields)


def awaits_retry(step: StepStatus | PlatformStatus) -> bool:
    """Return whether the last attempt of `step` has failed and another follows, due or refused so far.

    An older definition has no room for the attempts, and one that is refused says another reason.
    """
    return step.reason is Reason.RETRYING or any(tried.attempt == step.attempt for tried in step.failed_attempts)


def has_failed(step: StepStatus | PlatformStatus) -> bool:
    """Return whether `step` has failed for good."""
    if isinstance(step, PlatformStatus):
        return step.phase is Phase.FAILED
    return step.finished_at is not None and step.reason is not None and not awaits_retry(step)


def next_due(context: Context, step: StepStatus | PlatformStatus) -> datetime | None:
    """Return when the next attempt of `step` is due: `now` for the first, None while one goes on or none follows."""
    if awaits_retry(step):
        return retry_at(step.finished_at or context.now, step.attempt)
    return context.now if step.attempt == 0 else None


def _age(pod: Pod) -> tuple[int, datetime, bool, bool]:
    # Of two that were created in the same second, the one that is being deleted was replaced by the other.
    return (pod.attempt, pod.created_at, not pod.deleting, pod.mode == Mode.EMULATED)


def _adopted(step: StepT, pod: Pod) -> StepT:
    """Return `step` as the attempt that `pod` is."""
    fields: dict[str, object] = {
        "pod": pod.name,
        "attempt": pod.attempt,
        "finished_at": pod.ended.finished_at if pod.ended else None,
        # If it has succeeded after all, it had not failed.
        "failed_attempts": tuple(tried for tried in step.failed_attempts if tried.attempt != pod.attempt),
    }
    if isinstance(step, PlatformStatus):
        fields |= {"mode": pod.mode, "node": pod.node, "started_at": pod.step_started_at}
    if not isinstance(step, PlatformStatus) or pod.attempt != step.attempt or awaits_retry(step):
        # Said of an attempt before: an operator that was killed has started the next one, and has not said so.
        fields |= {"reason": None, "message": None}
    return step.model_copy(update=fields)


def _succeeded(context: Context, step: StepT) -> StepT:
    fields: dict[str, object] = {"finished_at": step.finished_at or context.now}
    if isinstance(step, PlatformStatus):
        fields |= {"phase": Phase.SUCCEEDED, "reason": Reason.SUCCEEDED, "message": None, "log_tail": None}
    return step.model_copy(update=fields)
