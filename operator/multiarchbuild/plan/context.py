"""What every part of a decision looks at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Failure

from .actions import StartBuild, StartPublish
from .children import Claim, ConfigMap, Node, Pod, Role
from .cluster import ClusterView
from .flux import Artifact
from .identity import inputs_name
from .not_created import Child, NotCreated, child, rejected
from .parents import Parents
from .policy import Policy
from .rules import pod_refusal

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
    config_maps: tuple[ConfigMap, ...] = ()
    not_created: NotCreated = field(default_factory=NotCreated)
    template: Callable[[StartBuild | StartPublish, MultiArchBuild, Policy], str] | None = None
    """Hash of what pods for the same step of a build have in common (`kept.Template`); without it none is kept."""

    claims: tuple[Claim, ...] = ()
    """What there is of volumes for what builders keep."""
    parents: Parents = field(default_factory=Parents)
    """What the builds have published that this one is made from."""
    others: ClusterView = field(default_factory=ClusterView)
    """All builds, this one included."""

    @property
    def waits(self) -> bool:
        """Whether nothing can be built before Flux has an artifact, or other builds have their images."""
        of_flux = self.build.spec.source.flux is not None and (self.artifact is None or self.artifact.source is None)
        # A cycle is told as such.
        return of_flux or (bool(self.parents.problem) and not self.parents.cycle)

    def pods_of(self, run: str, role: Role) -> tuple[Pod, ...]:
        """Return the pods with this part in `run`."""
        return tuple(pod for pod in self.pods if (pod.run_id, pod.role) == (run, role))

    def pod_named(self, name: str | None) -> Pod | None:
        """Return the pod of this name."""
        return next((pod for pod in self.pods if pod.name == name), None)

    def inputs(self, run: str) -> Child:
        """Return the ConfigMap of `run`, be there one or not."""
        existing = next((each.name for each in self.config_maps if each.run_id == run and not each.is_record), None)
        return Child(existing) if existing else child(inputs_name(self.build, run), self.not_created)

    def pod_to_create(self, run: str, name: str) -> Child:
        """Return the pod of `run` that `name` was made for; it can't be without its ConfigMap, nor against the policy.

        The policy may have become stricter since the run started.
        """
        if denied := pod_refusal(self.build, self.policy):
            return rejected(name, f"{name} was not created: {denied}")
        inputs = self.inputs(run)
        return replace(inputs, name=name) if inputs.reason or inputs.failed else child(name, self.not_created)

    @property
    def timeout(self) -> timedelta:
        """How long a run may take."""
        return self.policy.timeout(self.build.spec.timeout)

    def seconds_left(self, started_at: datetime) -> int:
        """Return what a pod of a run may take, in seconds: a little more than the run, whose own timeout says more."""
        end = started_at + self.timeout
        return min(max(int((end - self.now).total_seconds()), 1) + _SLACK, _MAX_DEADLINE)

    def retries(self, failure: Failure, attempt: int) -> bool:
        """Return whether `attempt` (from 1), which failed so, is followed by another.

        One that left a tag alone always is, once: nothing is wrong with what it does, it has to look at the tag again.
        So is one that lacks a Secret, which may come a moment after the build: whoever makes Secrets is another
        controller, and GitOps applies all at once. And one that failed for its volume: the next has none, and what only
        makes builds faster fails none.
        """
        if failure.reason is Reason.CACHE_VOLUME_FAILED:
            return True
        if failure.reason is Reason.SECRET_NOT_FOUND:
            return attempt == 1
        least = 1 if failure.reason is Reason.TAG_MOVED else 0
        return failure.reason.retryable and attempt <= max(self.build.spec.retries, least)


def retry_at(failed_at: datetime, attempt: int) -> datetime:
    """Return when the try after `attempt` (from 1) starts: 5 s, 20 s, and then a minute later.

    With the two retries of the default, what is away for 20 s fails no run.
    """
    return failed_at + _PAUSES[min(attempt, len(_PAUSES)) - 1]


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of `moments`."""
    return min((moment for moment in moments if moment is not None), default=None)
