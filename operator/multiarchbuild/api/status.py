"""`status` of a MultiArchBuild: from it alone a person can tell what happened, where, when and why."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from . import limits
from .base import StoredModel
from .conditions import Condition
from .reasons import Reason
from .schema import SET, MapBy

MAX_BYTES = 64 * 1024
"""Size of the JSON of a status; log tails and messages are cut first."""

Message = Annotated[str, Field(max_length=limits.MESSAGE)]


class Mode(StrEnum):
    """How a platform was built."""

    NATIVE = "Native"
    EMULATED = "Emulated"
    CROSS = "Cross"


class Phase(StrEnum):
    """Where a platform's build stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"


class Trigger(StrEnum):
    """Why a run was started."""

    SPEC_CHANGED = "SpecChanged"
    SOURCE_CHANGED = "SourceChanged"
    REQUESTED = "Requested"


class Result(StrEnum):
    """How a run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"


class CacheStatus(StoredModel):
    """How much of a build came from the cache."""

    hits: Annotated[int, Field(ge=0)]
    """Steps that came from the cache."""
    total: Annotated[int, Field(ge=0)]
    """Steps of the build."""


class SourceStatus(StoredModel):
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


class SourceCheck(StoredModel):
    """What the last look at a polled source has found."""

    last_checked_at: datetime | None = None
    """When a look ended last."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit that it found in a git repository."""
    digest: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of the artifact that it found in a registry."""
    checks: Annotated[int, Field(ge=0)] = 0
    """Looks that have ended since the run in status.run."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """Pod of the look that goes on."""
    reason: Reason | None = None
    """Why the last look failed, or this one does not start."""
    message: Message | None = None
    """What happened and what to do next."""


class FailedAttempt(StoredModel):
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


class PlatformStatus(StoredModel):
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
    started_at: datetime | None = None
    """When the build step started."""
    finished_at: datetime | None = None
    """When the build step ended."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """What the builder pushed."""
    cache: CacheStatus | None = None
    """How much came from the cache."""
    failed_attempts: FailedAttempts = ()
    """The last tries before this one: why there had to be another."""
    log_tail: Annotated[str, Field(max_length=limits.LOG_TAIL)] | None = None
    """Last lines of the log of a failed build."""


class StepStatus(StoredModel):
    """A step that the whole run has one of: resolve or publish."""

    pod: Annotated[str, Field(max_length=253)] | None = None
    """Its pod."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """Which try this is, from 1."""
    reason: Reason | None = None
    """Why it failed or is tried again."""
    message: Message | None = None
    """What happened and what to do next."""
    finished_at: datetime | None = None
    """When it ended."""
    failed_attempts: FailedAttempts = ()
    """The last tries before this one: why there had to be another."""


class RunStatus(StoredModel):
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
    started_at: datetime
    """When it was started."""
    finished_at: datetime | None = None
    """When it ended."""
    result: Result | None = None
    """How it ended."""
    reason: Reason | None = None
    """Why it stands where it stands."""
    message: Message | None = None
    """What happened and what to do next."""
    resolve: StepStatus | None = None
    """The step that pins the source."""
    platforms: Annotated[
        tuple[PlatformStatus, ...],
        Field(max_length=limits.PLATFORMS),
        MapBy("platform"),
    ] = ()
    """One entry for each platform."""
    publish: StepStatus | None = None
    """The step that makes the index and moves the tags."""


class ImagePlatform(StoredModel):
    """One image of the index."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    """Its platform."""
    digest: Annotated[str, Field(max_length=71)]
    """Digest of its manifest."""
    size: Annotated[int, Field(ge=0)]
    """Compressed bytes of its config and layers."""


class ImageStatus(StoredModel):
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
    platforms: Annotated[
        tuple[ImagePlatform, ...],
        Field(max_length=limits.PLATFORMS),
        MapBy("platform"),
    ] = ()
    """The images of the index."""
    size: Annotated[int, Field(ge=0)] = 0
    """Compressed bytes of all its images."""
    signature: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the manifest with its cosign signatures, which the tag sha256-….sig names, where output.signing has
    signed it."""


class HistoryEntry(StoredModel):
    """A run that has ended."""

    id: Annotated[str, Field(max_length=32)]
    """Id of the run."""
    result: Result
    """How it ended."""
    reason: Reason
    """Why."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """Digest of the index it published."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """Commit it built."""
    started_at: datetime
    """When it was started."""
    finished_at: datetime
    """When it ended."""


class Status(StoredModel):
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
    platforms: Annotated[str, Field(max_length=16)] | None = None
    """Platforms done and wanted, such as 1/2, for kubectl get."""
    short_digest: Annotated[str, Field(max_length=12)] | None = None
    """First 12 characters of the digest of the image, for kubectl get."""
    duration: Annotated[str, Field(max_length=24)] | None = None
    """How long the last run took, for kubectl get."""
    last_handled_reconcile_at: Annotated[str, Field(max_length=64)] | None = None
    """Last value of the annotation reconcile.fluxcd.io/requestedAt that was acted on."""
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(max_length=20),
        MapBy("id"),
    ] = ()
    """Ended runs, the newest first."""
