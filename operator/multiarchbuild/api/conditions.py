"""Conditions by the rules of kstatus, so that kubectl wait, Flux and Argo CD need no special case.

Source: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md. Reconciling, Stalled
and TagConflict are "abnormal-true": absent when there is nothing to say.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .base import Model


class ConditionType(StrEnum):
    """The types the operator writes."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUCCEEDED = "Succeeded"
    TAG_CONFLICT = "TagConflict"


class Condition(Model):
    """One observation, as `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    """Type of condition in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Reason for the last transition, in CamelCase."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """What happened, to what, and what to do next."""
    observed_generation: Annotated[int, Field(ge=0)]
    """Generation of the spec this was observed for."""
    last_transition_time: datetime
    """When `status` changed last."""


def merge(old: tuple[Condition, ...], new: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Return `new` with the transition times of `old` kept where the status did not change."""
    before = {condition.type: condition for condition in old}
    return tuple(
        condition.model_copy(update={"last_transition_time": before[condition.type].last_transition_time})
        if condition.type in before and before[condition.type].status == condition.status
        else condition
        for condition in new
    )
