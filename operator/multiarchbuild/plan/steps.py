"""The steps that a run has one of: resolve before the builds, publish after them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import RunStatus, StepStatus

from . import attempts, builds
from .actions import StartPublish, StartResolve
from .children import Pod, Role
from .context import Context
from .identity import step_name


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Where a step stands after this decision."""

    status: StepStatus
    action: StartResolve | StartPublish | None = None
    wake_at: datetime | None = None


def proceed(
    context: Context,
    run: RunStatus,
    role: Role,
    status: StepStatus | None,
    start: Callable[[str, int], StartResolve | StartPublish],
) -> StepProgress:
    """Return what is to do for the step `role` of `run`; `start` makes the action for a pod's name and attempt."""
    status = status or StepStatus()
    if attempts.has_failed(status):
        return StepProgress(status)
    due = attempts.next_due(context, status)
    if due is None:
        pod = context.pod_named(status.pod)
        return StepProgress(_described(status, pod) if pod is not None else status)
    if context.now < due:
        return StepProgress(status, wake_at=due)
    attempt = status.attempt + 1
    child = context.pod_to_create(run.id, step_name(context.build, run.id, role, attempt))
    if child.reason:
        waits = status.model_copy(update={"reason": child.reason, "message": child.message})
        return StepProgress(waits, wake_at=context.now + child.ask_after)
    if child.failed:
        return StepProgress(status)
    started = StepStatus(pod=child.name, attempt=attempt, failed_attempts=status.failed_attempts)
    return StepProgress(started, action=start(child.name, attempt))


def _described(status: StepStatus, pod: Pod) -> StepStatus:
    if pod.gates:
        return status.model_copy(update={"reason": Reason.QUEUED, "message": builds.queued(pod)})
    if pod.unschedulable:
        return status.model_copy(update={"reason": Reason.UNSCHEDULABLE, "message": pod.unschedulable})
    if pod.waiting_reason and pod.step_started_at is None:
        message = f"{pod.waiting_reason}: {pod.waiting_message}"
        return status.model_copy(update={"reason": Reason.PENDING, "message": message})
    return status
