"""What every part of a decision looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Failure

from .children import Node, Pod, Role
from .flux import Artifact
from .policy import Policy

_PAUSES = (timedelta(seconds=5), timedelta(seconds=20), timedelta(minutes=1))
_SLACK = 30
_MAX_DEADLINE = 2**31 - 1
"""The API server takes no activeDeadlineSeconds beyond a 32-bit integer; spec.timeout may be longer."""


@dataclass(frozen=True, slots=True)
class Context:
    """One build and its surroundings at one moment."""

    build: MultiArchBuild
    pods: tuple[Pod, ...]
    nodes: Sequence[Node]
    policy: Policy
    now: datetime
    artifact: Artifact | None = None
    """What Flux says, where the source is an object of Flux."""

    @property
    def waits_for_artifact(self) -> bool:
        """Whether nothing can be built before Flux has an artifact."""
        return self.build.spec.source.flux is not None and (self.artifact is None or self.artifact.source is None)

    def pod(self, run: str, role: Role, platforms: tuple[Platform, ...] = ()) -> Pod | None:
        """Return the newest pod with this part in `run`: of the last attempt, and of that the last created.

        Of two that were created in the same second, the one that is being deleted was replaced by the other.
        """
        matching = [
            pod
            for pod in self.pods
            if (pod.run_id, pod.role) == (run, role) and (role is not Role.BUILD or pod.platforms == platforms)
        ]
        return max(
            matching,
            key=lambda pod: (pod.attempt, pod.created_at, not pod.deleting, pod.mode == "Emulated"),
            default=None,
        )

    @property
    def timeout(self) -> timedelta:
        """How long a run may take."""
        return self.policy.timeout(self.build.spec.timeout)

    def seconds_left(self, started_at: datetime) -> int:
        """Return what a pod of a run may take, in seconds: a little more than the run, whose own timeout says more."""
        end = started_at + self.timeout
        return min(max(int((end - self.now).total_seconds()), 1) + _SLACK, _MAX_DEADLINE)

    def retries(self, failure: Failure, attempt: int) -> bool:
        """Return whether `attempt` (from 1), which failed so, is followed by another."""
        return failure.reason.retryable and attempt <= self.build.spec.retries


def retry_at(failed_at: datetime, attempt: int) -> datetime:
    """Return when the try after `attempt` (from 1) starts: 5 s, 20 s, and then a minute later.

    With the two retries of the default, what is away for 20 s fails no run.
    """
    return failed_at + _PAUSES[min(attempt, len(_PAUSES)) - 1]


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of `moments`."""
    return min((moment for moment in moments if moment is not None), default=None)
