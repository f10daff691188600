"""`status` of a MultiArchBuild: from it alone a person can tell what happened, where, when and why."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from . import limits
from .base import Model, OpenEnum, Record
from .conditions import Condition
from .keyless import SignedBy
from .reasons import Reason
from .schema import SET, MapBy

MAX_BYTES = 64 * 1024
"""Size of the JSON of a status; log tails and messages are cut first."""

Message = Annotated[str, Field(max_length=limits.MESSAGE)]

Bases = Annotated[
    tuple[Annotated[str, Field(max_length=limits.BASE)], ...],
    Field(max_length=limits.BASES, exclude_if=lambda bases: not bases),
    SET,
]
"""Base images that are named by a tag, each as `registry/repository:tag@sha256:…`."""


class Mode(OpenEnum):
    """How a platform was built."""

    NATIVE = "Native"
    EMULATED = "Emulated"
    CROSS = "Cross"


class Phase(OpenEnum):
    """Where a platform's build stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"


class BuilderUse(OpenEnum):
    """Whether a platform was built by the builder that an earlier run has left, or why not; likewise the publish step.

    What is said of builders is true of the pod of that step, which has no buildkitd.
    """

    KEPT = "Kept"
    """By that one."""
    NONE_KEPT = "NoneKept"
    """There was none."""
    TEMPLATE_CHANGED = "TemplateChanged"
    """Another pod is needed: another node, Secret, cache, resources or policy."""
    BUSY = "Busy"
    """It has not ended with the run before."""
    WORN_OUT = "WornOut"
    """It has reached keptBuilders.maxAge or keptBuilders.maxRuns of the policy."""
    NODE_UNUSABLE = "NodeUnusable"
    """Its node is cordoned, not ready or short of disk."""
    RESTARTED = "Restarted"
    """Its buildkitd was started again."""
    REFUSED = "Refused"
    """The request could not be handed over: the pod was gone, or the request too large."""
    NO_ANSWER = "NoAnswer"
    """It did not begin in time."""
    LOST = "Lost"
    """It was lost while it built, or failed for a reason that may be its own."""
    UNCHANGED = "Unchanged"
    """None was needed: nothing has changed since the last image."""


class CacheVolumeUse(OpenEnum):
    """What a builder has of the volume that cache.volume asks for."""

    NEW = "New"
    """It has one that was made for it, and is empty."""
    USED = "Used"
    """It has the one of earlier runs."""
    IN_USE = "InUse"
    """It has none: another pod, which does not end, has it."""
    UNAVAILABLE = "Unavailable"
    """It has none: no node could mount it in time, or it was not made in time."""
    FAILED = "Failed"
    """It has none: it was full or not mounted, or buildkitd did not start with what is in it."""
    DELETED = "Deleted"
    """It has none: somebody has deleted it, or its storage is lost."""
    REFUSED = "Refused"
    """It has none: the API server did not let it be made."""


class Trigger(OpenEnum):
    """Why a run was started."""

    SPEC_CHANGED = "SpecChanged"
    SOURCE_CHANGED = "SourceChanged"
    REQUESTED = "Requested"
    PARENT_PUBLISHED = "ParentPublished"
    """A MultiArchBuild that this one is built from has published another image."""
    BASE_IMAGE_CHANGED = "BaseImageChanged"
    """The tag of a base image means something else than when the image was built."""
    SCHEDULED = "Scheduled"
    """rebuild.schedule said so."""
    RETRIED = "Retried"
    """The last run failed for its infrastructure, and rebuild.retryInterval has passed."""


class Result(OpenEnum):
    """How a run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"


class CacheStatus(Record):
    """How much of a build came from the cache."""

    hits: Annotated[int, Field(ge=0)]
    """Steps that came from the cache."""
    total: Annotated[int, Field(ge=0)]
    """Steps of the build."""


class SourceStatus(Model):
    """What exactly a run builds."""

    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit, in full."""
    ref: Annotated[str, Field(max_length=limits.REF)] | None = None
    """Branch, tag or commit that was asked for."""
    author: Annotated[str, Field(max_length=limits.AUTHOR)] | None = None
    """Author of the commit."""
    time: datetime | None = None
    """Committer time."""
    digest: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of what is built, of every source but git: of the archive, the artifact or the inline files."""
    revision: Annotated[str, Field(max_length=limits.REVISION)] | None = None
    """Revision of a Flux object's artifact."""
    url: Annotated[str, Field(max_length=limits.URL)] | None = None
    """Where Flux serves that artifact."""
    paths: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of the files that source.paths names: what does not change it starts no run."""


class LookStatus(Model):
    """Where looks stand at something that may have changed since the last run."""

    last_checked_at: datetime | None = None
    """When a look ended last."""
    checks: Annotated[int, Field(ge=0)] = 0
    """Looks that have ended since the run in status.run."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """Pod of the look that goes on."""
    reason: Reason | None = None
    """Why the last look failed, or this one does not start."""
    message: Message | None = None
    """What happened and what to do next."""
    requested: Annotated[str, Field(max_length=64)] | None = None
    """Value of the annotation reconcile.fluxcd.io/requestedAt, while the look that it asks for has not begun."""


class BaseImagesCheck(LookStatus):
    """What the last look at base images has found."""

    moved: Bases = ()
    """Base images whose tags mean something else by now than when the image in status.image was built: what they are
    now."""


class SourceCheck(LookStatus):
    """What the last look at a polled source has found."""

    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit that it found in a git repository."""
    digest: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of the artifact that it found in a registry, or that Flux has."""
    revision: Annotated[str, Field(max_length=limits.REVISION)] | None = None
    """Revision of the Flux object's artifact that it has looked at."""
    skipped: Annotated[bool, Field(exclude_if=lambda skipped: not skipped)] = False
    """Whether that is another one than the last run has built, and changes nothing that source.paths names."""


class FailedAttempt(Record):
    """A try that failed and was followed by another."""

    attempt: Annotated[int, Field(ge=1)]
    """Which try it was, from 1."""
    reason: Reason
    """Why it failed."""
    message: Annotated[str, Field(max_length=limits.FAILED_ATTEMPT)] = ""
    """What happened."""
    node: Annotated[str, Field(max_length=253)] | None = None
    """Node of the pod."""
    finished_at: datetime
    """When it ended."""


FailedAttempts = Annotated[
    tuple[FailedAttempt, ...],
    # Left out where there are none, as nearly always: a person reads this.
    Field(max_length=limits.FAILED_ATTEMPTS, exclude_if=lambda tries: not tries),
    MapBy("attempt"),
]


class PlatformStatus(Model):
    """One platform of a run."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    """The platform, as in spec.platforms."""
    phase: Phase = Phase.PENDING
    """Where it stands."""
    mode: Mode | None = None
    """How it is built."""
    reason: Reason | None = None
    """Why it stands there."""
    message: Message | None = None
    """What happened and what to do next."""
    node: Annotated[str, Field(max_length=253)] | None = None
    """Node of the builder."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """Pod of the builder."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """Which try this is, from 1."""
    builder: BuilderUse | None = None
    """Whether a kept builder is used, or why not; absent where none is kept."""
    volume: CacheVolumeUse | None = None
    """Whether the builder has the volume that cache.volume asks for, or why not; absent where none is asked for."""
    dequeued_at: datetime | None = None
    """When its pod was seen to be let go by who had held it back with scheduling gates; it waits for a node since."""
    started_at: datetime | None = None
    """When the build step started."""
    finished_at: datetime | None = None
    """When the build step ended."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the image's manifest, as status.image has it once it is published."""
    pushed: Annotated[str, Field(max_length=71)] | None = None
    """Digest of what BuildKit pushed, which holds the image: an index where there are attestations."""
    record: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the blob with what its builder has recorded, of which publish makes the build record."""
    cache: CacheStatus | None = None
    """How much came from the cache."""
    failed_attempts: FailedAttempts = ()
    """The last tries before this one: why there had to be another."""
    log_tail: Annotated[str, Field(max_length=limits.LOG_TAIL)] | None = None
    """Last lines of the log of a failed build."""
    warnings: Annotated[
        tuple[Annotated[str, Field(max_length=limits.WARNING)], ...],
        Field(max_length=limits.WARNINGS, exclude_if=lambda found: not found),
    ] = ()
    """The first findings of BuildKit's checks of the Dockerfile, such as a base of another architecture that it names
    by a constant `FROM --platform`. The log has all of them."""

    bases: Bases = ()
    """Base images that it was built from, while the image of all platforms is not published."""

    @property
    def builder_output(self) -> str | None:
        """Digest of what its builder pushed: in a status of a version that had no `pushed`, that is `digest`."""
        return self.pushed or self.digest


class StepStatus(Model):
    """A step that the whole run has one of: resolve or publish."""

    pod: Annotated[str, Field(max_length=253)] | None = None
    """Its pod."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """Which try this is, from 1."""
    reuse: BuilderUse | None = None
    """Whether the pod of an earlier run is used, or why not; absent where none is kept."""
    reason: Reason | None = None
    """Why it failed or is tried again, or what it waits for."""
    message: Message | None = None
    """What happened and what to do next."""
    finished_at: datetime | None = None
    """When it ended."""
    failed_attempts: FailedAttempts = ()
    """The last tries before this one: why there had to be another."""


class ParentImage(Model):
    """The image of another MultiArchBuild that a run is built from."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the MultiArchBuild."""
    ref: Annotated[str, Field(max_length=384)]
    """Its image by digest."""


class Comparison(Model):
    """Whether a requested run would make the last image again."""

    digest: Annotated[str, Field(max_length=71)]
    """Digest of that image's index."""
    changed: Annotated[str, Field(max_length=limits.CHANGED)] | None = None
    """What is another than it was, or can't be checked: then the run builds."""


class RunStatus(Model):
    """The current or the last run."""

    id: Annotated[str, Field(max_length=32)]
    """Id of the run: a hash of everything that made it necessary."""
    trigger: Trigger
    """Why it was started."""
    inputs: Annotated[str, Field(max_length=64)]
    """Hash of the part of spec that shapes the image."""
    execution: Annotated[str, Field(max_length=64)] = ""
    """Hash of the part of spec that shapes only how it is built: cache, scheduling, timeout, retries."""
    request: Annotated[str, Field(max_length=64)] | None = None
    """Value of the annotation multiarch.build/rebuild-requested-at that this run answers."""
    source: SourceStatus | None = None
    """What exactly is built."""
    cause: Annotated[str, Field(max_length=limits.CAUSE)] | None = None
    """What exactly has started it, where that is another image."""
    parents: Annotated[
        tuple[ParentImage, ...], Field(max_length=16, exclude_if=lambda parents: not parents), MapBy("name")
    ] = ()
    """Images of the MultiArchBuilds that build.contexts names, as they are built from."""
    bases: Bases = ()
    """Base images that were known to have moved when it started: no other run starts for the same."""
    trace_id: Annotated[str, Field(max_length=32)] | None = None
    """Id of its trace, where the policy has runs traced."""
    retry: Annotated[int, Field(ge=0, exclude_if=lambda retry: not retry)] = 0
    """How many runs in a row rebuild.retryInterval has started, with this one."""
    started_at: datetime
    """When it was started."""
    queued_at: datetime | None = None
    """Since when it waited for its turn before, where it had to."""
    finished_at: datetime | None = None
    """When it ended."""
    result: Result | None = None
    """How it ended."""
    reason: Reason | None = None
    """Why it stands where it stands."""
    message: Message | None = None
    """What happened and what to do next."""
    comparison: Comparison | None = None
    """With what the run is compared, where it was requested and the spec asks for what the last one has built."""
    resolve: StepStatus | None = None
    """The step that pins the source, and compares."""
    platforms: Annotated[
        tuple[PlatformStatus, ...],
        Field(max_length=limits.PLATFORMS),
        MapBy("platform"),
    ] = ()
    """One entry for each platform."""
    publish: StepStatus | None = None
    """The step that makes the index and moves the tags."""


class ImagePlatform(Record):
    """One image of the index."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    """Its platform."""
    digest: Annotated[str, Field(max_length=71)]
    """Digest of its manifest."""
    size: Annotated[int, Field(ge=0)]
    """Compressed bytes of its config and layers."""


class ImageStatus(Record):
    """The last image that was published."""

    ref: Annotated[str, Field(max_length=384)]
    """Image by digest, ready to be deployed."""
    digest: Annotated[str, Field(max_length=71)]
    """Digest of the index."""
    tags: Annotated[
        tuple[Annotated[str, Field(max_length=limits.TAG)], ...],
        Field(max_length=limits.TAGS),
        SET,
    ] = ()
    """Tags that were moved to it."""
    destinations: Annotated[
        tuple[Annotated[str, Field(max_length=255)], ...],
        Field(max_length=limits.DESTINATIONS),
        SET,
    ] = ()
    """Further repositories that have it, by the same digest and under the same tags."""
    platforms: Annotated[
        tuple[ImagePlatform, ...],
        Field(max_length=limits.PLATFORMS),
        MapBy("platform"),
    ] = ()
    """The images of the index."""
    size: Annotated[int, Field(ge=0)] = 0
    """Compressed bytes of all its images."""
    published_at: datetime | None = None
    """When its tags were moved."""
    signature: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the manifest with its cosign signatures, which the tag sha256-….sig names, where output.signing has
    signed it."""
    signed_by: SignedBy | None = None
    """Identity that has signed it, where a certificate names one (output.signing.keyless)."""
    record: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the manifest that attaches the build record to the index."""
    bases: Bases = ()
    """Base images that it was built from, but for those that the Dockerfile pins: only tags can move."""


class HistoryEntry(Record):
    """A run that has ended."""

    id: Annotated[str, Field(max_length=32)]
    """Id of the run."""
    result: Result
    """How it ended."""
    reason: Reason
    """Why."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the index it published."""
    record: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the manifest that attaches its build record to that index."""
    cache: CacheStatus | None = None
    """How much came from the cache, of all platforms that it has built."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit it built."""
    started_at: datetime
    """When it was started."""
    finished_at: datetime
    """When it ended."""


class Columns(Model):
    """What kubectl get prints and can't compute from the rest of status."""

    platforms: Annotated[str, Field(max_length=16)] | None = None
    """Platforms done and wanted, such as 1/2."""
    digest: Annotated[str, Field(max_length=12)] | None = None
    """First 12 characters of the digest of the image."""
    duration: Annotated[str, Field(max_length=24)] | None = None
    """How long the last run took."""


class Status(Model):
    """What the operator has observed and done."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """Generation of the spec that this status speaks of."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=8),
        MapBy("type"),
    ] = ()
    """Ready, and where they apply Reconciling, Stalled, Succeeded and TagConflict."""
    image: ImageStatus | None = None
    """The last image that was published."""
    run: RunStatus | None = None
    """The current or the last run."""
    source: SourceCheck | None = None
    """Looks at the source between runs, with source.git.interval or source.oci.interval."""
    base_images: BaseImagesCheck | None = None
    """Looks at base images between runs, with rebuild.onBaseImage."""
    columns: Columns | None = None
    """What kubectl get prints. For people: all of it follows from the rest of status."""
    last_handled_reconcile_at: Annotated[str, Field(max_length=64)] | None = None
    """Last value of the annotation reconcile.fluxcd.io/requestedAt that was acted on."""
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(max_length=20),
        MapBy("id"),
    ] = ()
    """Ended runs, the newest first."""
