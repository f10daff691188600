"""Whether a run that is wanted may start now, and what status says when it may not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from multiarchbuild.api.conditions import Condition, ConditionType, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild

from .builds import contradictions
from .others import Other
from .policy import Policy
from .rules import refusal
from .turns import turn

LOOK_AGAIN = timedelta(seconds=30)
"""How old the place in the queue may be that status shows; whose turn it is, is told at once."""


@dataclass(frozen=True, slots=True)
class Held:
    """A run that is wanted and may not start."""

    reason: Literal[Reason.INVALID_SPEC, Reason.POLICY_DENIED, Reason.QUEUED]
    message: str


def held(build: MultiArchBuild, others: Sequence[Other], policy: Policy, now: datetime) -> Held | None:
    """Return what keeps `build`, which wants a run, from starting it."""
    if message := refusal(build, policy):
        return Held(Reason.POLICY_DENIED, message)
    if message := contradictions(build, policy):
        return Held(Reason.INVALID_SPEC, message)
    run = build.status.run
    if run is not None and run.result is None:
        # It has its turn already: the new run takes the place of the old one.
        return None
    place = turn(build, others, policy.concurrency, now)
    if not place.blocked_by:
        return None
    ahead = f"{place.ahead} of {place.waiting - 1} that wait go first"
    return Held(Reason.QUEUED, f"waits for its turn: {place.blocked_by} are going on; {ahead}")


def conditions(old: tuple[Condition, ...], held: Held, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Return the conditions of a build whose run is held: Stalled when somebody has to act, else Reconciling."""
    denied = held.reason is not Reason.QUEUED
    stated: tuple[tuple[ConditionType, Literal["True", "False", "Unknown"]], ...] = (
        (ConditionType.READY, "False" if denied else "Unknown"),
        (ConditionType.STALLED if denied else ConditionType.RECONCILING, "True"),
    )
    new = tuple(
        Condition(
            type=kind,
            status=status,
            reason=held.reason,
            message=held.message,
            observed_generation=generation,
            last_transition_time=now,
        )
        for kind, status in stated
    )
    return merge(old, new) + tuple(entry for entry in old if entry.type == ConditionType.SUCCEEDED)
