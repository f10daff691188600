"""Whether a run that is wanted may start now."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild

from .build_summary import summarize
from .builds import contradictions
from .cluster import ClusterView
from .parents import parents_of
from .policy import Policy
from .rules import refusal


@dataclass(frozen=True, slots=True)
class Blocker:
    """A run that is wanted and may not start."""

    reason: Literal[Reason.INVALID_SPEC, Reason.OPERATOR_OUTDATED, Reason.POLICY_DENIED, Reason.QUEUED]
    message: str


def blocked_by(build: MultiArchBuild, others: ClusterView, policy: Policy, now: datetime) -> Blocker | None:
    """Return what keeps `build`, which wants a run, from starting it."""
    if message := refusal(build, policy):
        return Blocker(Reason.POLICY_DENIED, message)
    if cycle := parents_of(build, others).cycle:
        message = f"build.contexts form a cycle, {cycle}, where each is built from the next: remove one of them"
        return Blocker(Reason.INVALID_SPEC, message)
    if message := contradictions(build, policy):
        return Blocker(Reason.INVALID_SPEC, message)
    run = build.status.run
    if run is not None and run.result is None:
        # It has its turn already: the new run takes the place of the old one.
        return None
    # No place in the queue and no count of runs: they change all the time, and each change would be a write.
    limit = others.turns.blocked_by(summarize(build), now)
    return Blocker(Reason.QUEUED, f"queued: {limit}") if limit else None
