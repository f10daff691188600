"""What `decide` asks for. Each action is idempotent: performing it twice is the same as once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from multiarchbuild.api.mounts import (
    BUILT_ANNOTATION,
    BUILT_AT_ANNOTATION,
    IDLE_ANNOTATION,
    REQUESTS_ANNOTATION,
    SOURCE_ANNOTATION,
)
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.results import Pushed, Source
from multiarchbuild.api.source import Paths
from multiarchbuild.api.status import CacheVolumeUse, Mode, ParentImage

from .children import Requests, Role
from .pod_policy import AccessMode

UNDISTURBED: Final = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations by which autoscalers leave a node alone while a step runs on it: what it has done would be lost.

Both look at pods that go on only: an ended one holds no node.
Sources: https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md, https://karpenter.sh/docs/concepts/disruption/
"""
DISTURBABLE: Final = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "karpenter.sh/do-not-disrupt": "false"}
"""The opposite, of a builder that waits for work."""


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
    parents: tuple[ParentImage, ...] = ()
    """Images of the builds that it is made from."""


@dataclass(frozen=True, slots=True)
class EnsureClaim:
    """Create the claim for what a builder keeps between runs."""

    name: str
    run_id: str
    """Of the run that needs it first."""
    platforms: tuple[Platform, ...]
    placement: str
    """Slug of the placement of the builder."""
    asked: str
    """Hash of the size and all else that is asked of it."""
    size: str
    storage_class: str
    """Empty for the default of the cluster."""
    access_mode: AccessMode


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
    """CHECK where it only looks whether the source has changed, CHECK_BASES where base images have."""
    artifact: Source | None = None
    """What Flux has, where the source is an object of Flux."""
    paths: Paths | None = None
    """Files that count, by the spec as it is now."""
    last: LastImage | None = None
    """What it compares with."""
    bases: tuple[str, ...] = ()
    """Base images that it asks for, and nothing else."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long a builder stays."""

    idle: int
    """Seconds that it waits for the next run."""
    life: int
    """Seconds that its pod may exist in all (activeDeadlineSeconds)."""


@dataclass(frozen=True, slots=True)
class StartBuild:
    """Create the pod that builds `platforms` with one builder."""

    name: str
    run_id: str
    attempt: int
    inputs: str
    deadline: int
    until: datetime
    """When the run ends: earlier than the pod, if the pod has to wait for a node."""
    platforms: tuple[Platform, ...]
    placement: Placement
    cache: CacheRefs
    source: Source | None
    """The pinned source, or None while it is being resolved: then AnnotateSource follows."""
    keep: Keep | None = None
    """Whether its builder stays for the next run."""
    parents: tuple[ParentImage, ...] = ()
    """As of the run's ConfigMap, for a builder that can't mount it any more."""
    claim: str = ""
    """Name of the claim that buildkitd keeps its state on; empty for a folder that goes with the pod."""
    volume: CacheVolumeUse | None = None
    """Whether it has one, or why not; None where none is asked for."""


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
    near: str = ""
    """Node that it had best run on, where there is room."""
    keep: Keep | None = None
    """Whether it stays for the next run."""
    parents: tuple[ParentImage, ...] = ()
    """As of the run's ConfigMap, for a pod that can't mount it any more."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hand a build, or the publish step, to a pod that was kept instead of creating one for it."""

    pod: str
    uid: str
    """Of the pod: a precondition."""
    after: str
    """Name of the request that it is idle after: a precondition, so that it never has two at once."""
    number: int
    """Which request of the pod this is, what it was created for being the first."""
    at: datetime
    """Now."""
    wanted: StartBuild | StartPublish
    """What would have been created."""
    last: LastImage | None = None
    """What it need not build again, if nothing has changed since."""


@dataclass(frozen=True, slots=True)
class AnnotateSource:
    """Hand the resolved source to a build pod that was started early, as long as it is of this run."""

    pod: str
    uid: str
    run_id: str
    source: Source

    @property
    def annotations(self) -> dict[str, str]:
        """What carries it."""
        return source_annotations(self.source)


def source_annotations(source: Source) -> dict[str, str]:
    """Return what carries it, in a pod that is made with it too."""
    return {SOURCE_ANNOTATION: _json(source)}


@dataclass(frozen=True, slots=True)
class AnnotateBuilt:
    """Hand what was built to a publish pod that was started early, as long as it is of this run."""

    pod: str
    uid: str
    run_id: str
    built: Pushed
    now: datetime

    @property
    def annotations(self) -> dict[str, str]:
        """What carries it."""
        return built_annotations(self.built, self.now)


def built_annotations(built: Pushed, at: datetime | None = None) -> dict[str, str]:
    """Return what carries it; `at`: when the pod was told, None where it is made with it."""
    return {BUILT_ANNOTATION: _json(built)} | ({BUILT_AT_ANNOTATION: at.isoformat()} if at else {})


@dataclass(frozen=True, slots=True)
class MarkIdle:
    """Tell a kept builder that its result is known, so that it waits for the next request."""

    pod: str
    uid: str
    request: str
    requests: str = ""
    """What it requests while it builds; empty where that is noted already."""

    @property
    def annotations(self) -> dict[str, str]:
        """What carries it; autoscalers may move it from now on."""
        noted = {REQUESTS_ANNOTATION: self.requests} if self.requests else {}
        return {IDLE_ANNOTATION: self.request, **noted, **DISTURBABLE}


@dataclass(frozen=True, slots=True)
class Resize:
    """Change what the containers of a pod request, in place. What comes of it nothing depends on."""

    pod: str
    uid: str
    requests: Requests
    lowers: bool = False
    """Whether it is of a builder that waits, which gets back what it has noted; else it gets that back now."""


def _json(handed: Source | Pushed) -> str:
    return handed.model_dump_json(by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True)
class KeepRecord:
    """Create a ConfigMap with what a builder that has failed for good has recorded."""

    name: str
    run_id: str
    platforms: tuple[Platform, ...]
    mode: Mode
    record: str
    """Compressed, in base64."""


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


@dataclass(frozen=True, slots=True)
class DeleteClaim:
    """Delete a PersistentVolumeClaim, likewise; it stays for as long as a pod has it."""

    name: str
    uid: str


Start = EnsureInputs | EnsureClaim | StartResolve | StartBuild | StartPublish
"""What creates a child."""
Deletion = DeletePod | DeleteConfigMap | DeleteClaim
"""What deletes one."""
Action = Start | HandOver | AnnotateSource | AnnotateBuilt | MarkIdle | Resize | KeepRecord | Deletion


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A Kubernetes Event to be posted once: the key makes its name."""

    key: str
    """What makes this event the same event when it is decided again, such as `<run>/BuildFailed/linux-arm64/1`."""
    type: str
    """Normal or Warning."""
    reason: str
    message: str
