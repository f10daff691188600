"""The steps that a run has one of: resolve before the builds, publish after them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Failure, Published, Resolved
from multiarchbuild.api.status import RunStatus, StepStatus

from .actions import StartPublish, StartResolve
from .attempts import with_failure
from .children import Pod, Role
from .context import Context, earliest, retry_at
from .outcome import Going, outcome


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Where a step stands after this decision."""

    status: StepStatus
    result: Resolved | Published | None = None
    failure: Failure | None = None
    """Why it failed for good."""
    action: StartResolve | StartPublish | None = None
    wake_at: datetime | None = None


def advance(
    context: Context,
    run: RunStatus,
    role: Role,
    status: StepStatus,
    start: Callable[[int], StartResolve | StartPublish],
) -> StepProgress:
    """Return where the step `role` of `run` stands; `start` makes the action for an attempt."""
    pod = context.pod(run.id, role)
    if pod is None or pod.attempt < status.attempt:
        return _without_pod(context, status, start)
    if status.reason is Reason.RETRYING and pod.attempt == status.attempt:
        return _retry_when_due(context, status, start)
    came = outcome(pod, context.now)
    status = StepStatus(pod=pod.name, attempt=pod.attempt, failed_attempts=status.failed_attempts)
    match came:
        case Going(look_again=look_again):
            return StepProgress(_described(status, pod), wake_at=look_again)
        case Failure():
            return _failed(context, status, came, pod)
        case Resolved() | Published():
            finished = pod.ended.finished_at if pod.ended else None
            return StepProgress(status.model_copy(update={"finished_at": finished or context.now}), result=came)
        case Built():
            wrong = Failure(reason=Reason.STEP_FAILED, message=f"pod {pod.name} left the result of another step")
            return _failed(context, status, wrong, pod)


def _without_pod(
    context: Context, status: StepStatus, start: Callable[[int], StartResolve | StartPublish]
) -> StepProgress:
    if status.reason is Reason.RETRYING:
        return _retry_when_due(context, status, start)
    if status.attempt:
        lost = Failure(reason=Reason.BUILDER_LOST, message=f"pod {status.pod} disappeared before its step ended")
        return _failed(context, status, lost, None)
    return _start(1, start, status)


def _retry_when_due(
    context: Context, status: StepStatus, start: Callable[[int], StartResolve | StartPublish]
) -> StepProgress:
    due = retry_at(status.finished_at or context.now, status.attempt)
    return StepProgress(status, wake_at=due) if context.now < due else _start(status.attempt + 1, start, status)


def _start(attempt: int, start: Callable[[int], StartResolve | StartPublish], before: StepStatus) -> StepProgress:
    action = start(attempt)
    status = StepStatus(pod=action.name, attempt=attempt, failed_attempts=before.failed_attempts)
    return StepProgress(status, action=action)


def _failed(context: Context, status: StepStatus, failure: Failure, pod: Pod | None) -> StepProgress:
    finished = (pod.ended.finished_at if pod and pod.ended else None) or context.now
    if not context.retries(failure, status.attempt):
        ended = {"reason": failure.reason, "message": failure.message, "finished_at": finished}
        return StepProgress(status.model_copy(update=ended), failure=failure)
    due = retry_at(finished, status.attempt)
    message = f"attempt {status.attempt} failed: {failure.reason}: {failure.message}; next try at {due:%H:%M:%S} UTC"
    tries = with_failure(status.failed_attempts, status.attempt, failure, finished, pod.node if pod else None)
    update = {"reason": Reason.RETRYING, "message": message, "finished_at": finished, "failed_attempts": tries}
    return StepProgress(status.model_copy(update=update), wake_at=earliest(due))


def _described(status: StepStatus, pod: Pod) -> StepStatus:
    if pod.unschedulable:
        return status.model_copy(update={"reason": Reason.UNSCHEDULABLE, "message": pod.unschedulable})
    if pod.waiting_reason:
        message = f"{pod.waiting_reason}: {pod.waiting_message}"
        return status.model_copy(update={"reason": Reason.PENDING, "message": message})
    return status
