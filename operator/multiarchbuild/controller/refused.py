"""Statuses for what `decide` never sees: specs that can't be read, children that the API server refuses."""

from datetime import datetime
from typing import Final

from pydantic import ValidationError

from multiarchbuild.api.conditions import Condition, ConditionType, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Status
from multiarchbuild.plan.summary import fit

MESSAGE: Final = 2048
"""Characters of a condition's message: a webhook may answer with a novel."""


def invalid_spec(status: Status, error: ValidationError, generation: int, now: datetime) -> Status:
    """Return the status of a build whose spec passed the API server's validation but not ours."""
    mistakes = "; ".join(
        f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False)
    )
    message = f"The spec can't be understood, change it: {mistakes}"
    return _stopped(
        status,
        kind=ConditionType.STALLED,
        reason=Reason.INVALID_SPEC,
        message=message,
        generation=generation,
        now=now,
    )


def pod_rejected(status: Status, what: str, answer: str, generation: int, now: datetime) -> Status:
    """Return the status of a build for which the API server refused to create `what`.

    It builds upon the status as it was read: what was decided upon the creation did not come to pass. A full
    quota frees itself, hence Reconciling; anything else needs somebody to act, hence Stalled. Both are tried
    again.
    """
    if "exceeded quota" in answer:
        kind, advice = ConditionType.RECONCILING, "It is tried again until the quota has room."
    else:
        kind, advice = (
            ConditionType.STALLED,
            "It is tried again each minute; change what the API server objects to.",
        )
    message = f"The API server refused {what}: {answer.rstrip('.')}. {advice}"
    return _stopped(status, kind=kind, reason=Reason.POD_REJECTED, message=message, generation=generation, now=now)


def _stopped(
    status: Status, *, kind: ConditionType, reason: Reason, message: str, generation: int, now: datetime
) -> Status:
    if len(message) > MESSAGE:
        message = message[: MESSAGE - 1] + "…"
    kept = tuple(condition for condition in status.conditions if condition.type == ConditionType.SUCCEEDED)
    new = tuple(
        Condition(
            type=condition,
            status=value,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=now,
        )
        for condition, value in ((ConditionType.READY, "False"), (kind, "True"))
    )
    conditions = merge(status.conditions, new) + kept
    return fit(status.model_copy(update={"observed_generation": generation, "conditions": conditions}))
