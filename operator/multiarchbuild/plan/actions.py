"""What `decide` asks for. Each action is idempotent: performing it twice is the same as once."""

from dataclasses import dataclass

from multiarchbuild.api.mounts import BUILT_ANNOTATION, SOURCE_ANNOTATION
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.results import Pushed, Source
from multiarchbuild.api.status import Mode

from .children import Role


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a builder goes."""

    mode: Mode
    node_selector: tuple[tuple[str, str], ...]
    """The pod's nodeSelector as (key, value), sorted: what spec demands and what the mode does."""
    slug: str = ""
    """What tells its pod from those that ask for other nodes in the same attempt; empty for the likeliest."""


@dataclass(frozen=True, slots=True)
class CacheRefs:
    """References of the registry cache for one builder."""

    export_to: str | None
    import_from: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnsureInputs:
    """Create the run's ConfigMap."""

    name: str
    run_id: str


@dataclass(frozen=True, slots=True)
class StartResolve:
    """Create the pod that pins the source."""

    name: str
    run_id: str
    attempt: int
    inputs: str
    """Name of the run's ConfigMap."""
    deadline: int
    """Seconds that the pod may take."""
    role: Role = Role.RESOLVE
    """CHECK where it only looks whether the source has changed."""


@dataclass(frozen=True, slots=True)
class StartBuild:
    """Create the pod that builds `platforms` with one builder."""

    name: str
    run_id: str
    attempt: int
    inputs: str
    deadline: int
    platforms: tuple[Platform, ...]
    placement: Placement
    cache: CacheRefs
    source: Source | None
    """The pinned source, or None while it is being resolved: then AnnotateSource follows."""


@dataclass(frozen=True, slots=True)
class StartPublish:
    """Create the pod that makes the index, verifies it and moves `tags`."""

    name: str
    run_id: str
    attempt: int
    inputs: str
    deadline: int
    tags: tuple[str, ...]
    built: Pushed | None
    """What the index is of, or None while some platform is still being built: then AnnotateBuilt follows."""


@dataclass(frozen=True, slots=True)
class AnnotateSource:
    """Hand the resolved source to a build pod that was started early."""

    pod: str
    source: Source

    @property
    def annotations(self) -> dict[str, str]:
        """What carries it."""
        return {SOURCE_ANNOTATION: _json(self.source)}


@dataclass(frozen=True, slots=True)
class AnnotateBuilt:
    """Hand what was built to a publish pod that was started early."""

    pod: str
    built: Pushed

    @property
    def annotations(self) -> dict[str, str]:
        """What carries it."""
        return {BUILT_ANNOTATION: _json(self.built)}


def _json(handed: Source | Pushed) -> str:
    return handed.model_dump_json(by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod; `uid` is a precondition, a pod that is gone or another is no error."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteConfigMap:
    """Delete a ConfigMap, likewise."""

    name: str
    uid: str


Start = EnsureInputs | StartResolve | StartBuild | StartPublish
"""What creates a child."""
Action = Start | AnnotateSource | AnnotateBuilt | DeletePod | DeleteConfigMap


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A Kubernetes Event to be posted once: the key makes its name."""

    key: str
    """What makes this event the same event when it is decided again, such as `<run>/BuildFailed/linux-arm64/1`."""
    type: str
    """Normal or Warning."""
    reason: str
    message: str
