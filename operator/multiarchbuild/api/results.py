"""What a step leaves in its container's termination message: at most 4096 bytes of JSON.

The limit is the kubelet's (`/dev/termination-log`, Kubernetes "Determine the Reason for Pod Failure").
Steps write these models, the operator reads them; nothing else passes between the two. What others have written,
such as a commit's author, is cut to what status has room for: nothing that a step met makes its report unreadable.
"""

import json
from bisect import bisect_left
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from . import limits
from .base import Model
from .keyless import SignedBy
from .reasons import Reason

MAX_BYTES = 4096
"""The kubelet keeps at most this many bytes of a termination message."""

_END_OF_TIME = 253402300799
"""9999-12-31T23:59:59Z: a commit may claim any time, RFC 3339 has four digits for the year."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Source(Model):
    """The exact source of a run, on which all its platforms agree."""

    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")] | None = None
    """Commit that was built, in full."""
    ref: Annotated[str, Field(max_length=limits.REF)] | None = None
    """Branch, tag or commit that was asked for."""
    author: Annotated[str, AfterValidator(lambda text: text[: limits.AUTHOR])] | None = None
    """Author of the commit."""
    time: Annotated[int, AfterValidator(lambda time: min(max(time, 0), _END_OF_TIME))] | None = None
    """Committer time, in seconds since the epoch."""
    digest: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of the archive or artifact that is built."""
    revision: Annotated[str, Field(max_length=limits.REVISION)] | None = None
    """Revision of a Flux object's artifact."""
    url: Annotated[str, Field(max_length=limits.URL)] | None = None
    """Where Flux serves that artifact."""
    paths: Annotated[str, Field(max_length=limits.DIGEST)] | None = None
    """Digest of what source.paths names and of the files that it names, where there is one."""


Finding = Annotated[str, AfterValidator(lambda text: text[: limits.WARNING])]


def _nothing(value: object) -> bool:
    """Return whether a field is left out: there is little room for those of a Pushed in the report of a builder."""
    return not value


Base = Annotated[str, Field(max_length=limits.BASE)]
"""Base image as `registry/repository:tag@sha256:…`."""


class PushedImage(Model):
    """What was pushed for a platform."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    digest: Digest
    """In a Pushed of a manifest, or of an index that has the platform; in a Built of the image's manifest."""
    mode: str | None = None
    """How it was built, in a Pushed: Native, Emulated or Cross."""
    node_architecture: str | None = None
    """Label kubernetes.io/arch of the node that built it, in a Pushed, where the operator still knows the node."""
    record: Digest | None = None
    """Digest of the blob with what its builder has recorded, in a Pushed."""
    attempt: Annotated[int, Field(ge=0, exclude_if=_nothing)] = 0
    """Which try it was, in a Pushed."""
    earlier_run: Annotated[bool, Field(exclude_if=_nothing)] = False
    """In a Pushed: whether an earlier run has built it."""
    phases: dict[str, float] = Field(default_factory=dict, exclude_if=_nothing)
    """In a Pushed: seconds that it waited for a node and for its container, by phase (`api.record`)."""


class Pushed(Model):
    """What the builders of a run pushed, in the order of spec.platforms."""

    images: Annotated[tuple[PushedImage, ...], Field(max_length=limits.PLATFORMS)]
    source: Source | None = None
    """What they were built from."""
    trigger: str | None = None
    """Why the run was started."""
    started_at: datetime | None = None
    """When the run was started."""
    handed_at: datetime | None = None
    """When the publish step was handed this, by the operator's clock, where something is to expire."""
    phases: dict[str, float] = Field(default_factory=dict)
    """Seconds that the run waited for its turn and for its source, by phase (`api.record`)."""


class CacheUse(Model):
    """How many steps of a build came from the cache."""

    hits: Annotated[int, Field(ge=0)]
    """Steps that came from the cache."""
    total: Annotated[int, Field(ge=0)]
    """Steps of the build."""


class Failure(Model):
    """A step that failed: why, and what to do."""

    kind: Literal["failure"] = "failure"
    reason: Reason
    message: Annotated[str, AfterValidator(lambda text: text[: limits.MESSAGE])]
    log_tail: Annotated[str, AfterValidator(lambda text: text[-limits.LOG_TAIL :])] = ""


class Resolved(Model):
    """Result of the resolve step."""

    kind: Literal["resolved"] = "resolved"
    source: Source = Source()
    bases: tuple[Base, ...] = ()
    """Base images that have moved, where it was asked for those: what they are now."""
    unchanged: bool = False
    """Whether the last image is what a build of it would make again, where that was asked."""
    changed: Annotated[str, AfterValidator(lambda text: text[: limits.CHANGED])] = ""
    """What is another than it was, or why nobody knows; empty where it was not asked."""


class Built(Model):
    """Result of the build step: what one builder pushed, by digest."""

    kind: Literal["built"] = "built"
    digest: Digest
    """Digest of the manifest or index that BuildKit pushed."""
    images: Annotated[tuple[PushedImage, ...], Field(max_length=limits.PLATFORMS)] = ()
    """The image of each platform in it; empty where the registry did not answer when it was asked for them."""
    cache: CacheUse = CacheUse(hits=0, total=0)
    unchanged: bool = False
    """Whether nothing was built, as it would be what is published: `digest` is that of the published index."""
    source_time: int | None = None
    record: Digest | None = None
    """Digest of the blob with what was recorded (`api.record.BuilderRecord`), where the registry took it."""
    warnings: Annotated[tuple[Finding, ...], AfterValidator(lambda found: found[: limits.WARNINGS])] = ()
    """Findings of BuildKit's checks of the Dockerfile, such as a constant `FROM --platform`."""
    bases: Annotated[tuple[Base, ...], AfterValidator(lambda found: found[: limits.BASES])] = ()
    """Base images that it was built from and that may move."""


class PublishedPlatform(Model):
    """One image of the index."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    """Compressed bytes of config and layers."""


class Published(Model):
    """Result of the publish step: one index, verified, signed where that is asked for, and tagged."""

    kind: Literal["published"] = "published"
    digest: Digest
    tags: Annotated[tuple[Annotated[str, Field(max_length=limits.TAG)], ...], Field(max_length=limits.TAGS)]
    platforms: Annotated[tuple[PublishedPlatform, ...], Field(max_length=limits.PLATFORMS)]
    signature: Digest | None = None
    """Digest of the manifest with the signatures of the index."""
    signed_by: SignedBy | None = None
    """Whose signature it is, where a certificate says it."""
    record: Digest | None = None
    """Digest of the manifest that attaches the build record to the index, where the registry took it."""


Result = Annotated[Failure | Resolved | Built | Published, Field(discriminator="kind")]


class Termination(Model):
    """Envelope, so that one parser reads every step."""

    result: Result
    request: Annotated[str, Field(max_length=253)] | None = None
    """What it is the result of, where one step is asked for several things in a row (a kept builder)."""


def dump(result: Failure | Resolved | Built | Published, request: str | None = None) -> bytes:
    """Return the termination message for `result`, at most MAX_BYTES long.

    Of a failure the log tail is cut first, from its beginning, then the message, from its end. The operator knows the
    tags of what is published: they are left out where there is no room for them, as the last warnings are.
    """
    if isinstance(result, Published) and len(_encode(result, request)) > MAX_BYTES:
        result = result.model_copy(update={"tags": ()})
    while isinstance(result, Built) and result.warnings and len(_encode(result, request)) > MAX_BYTES:
        result = result.model_copy(update={"warnings": result.warnings[:-1]})
    while isinstance(result, Built) and result.bases and len(_encode(result, request)) > MAX_BYTES:
        result = result.model_copy(update={"bases": result.bases[:-1]})
    if isinstance(result, Failure):
        result = _fit(result, request)
    return _encode(result, request)


def load(message: str, request: str | None = None) -> Failure | Resolved | Built | Published | None:
    """Return the result in a termination message, or None if there is none (the container was killed).

    The result of another request than `request` is none either.
    """
    try:
        found = Termination.model_validate_json(message)
    except ValidationError:
        return None
    return found.result if request is None or found.request in (None, request) else None


def _encode(result: Failure | Resolved | Built | Published, request: str | None) -> bytes:
    document = Termination(result=result, request=request).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _fit(failure: Failure, request: str | None) -> Failure:
    def with_tail(size: int) -> Failure:
        # The end of a log says why it failed.
        return failure.model_copy(update={"log_tail": failure.log_tail[len(failure.log_tail) - size :]})

    def with_message(size: int) -> Failure:
        return failure.model_copy(update={"log_tail": "", "message": failure.message[:size]})

    return (
        _longest(len(failure.log_tail), with_tail, request)
        or _longest(len(failure.message), with_message, request)
        or with_message(0)
    )


def _longest(size: int, cut: Callable[[int], Failure], request: str | None) -> Failure | None:
    """Return the longest of `cut(0)` to `cut(size)` that fits, or None. A character takes from one to six bytes."""
    fitting = bisect_left(range(size + 1), x=True, key=lambda each: len(_encode(cut(each), request)) > MAX_BYTES)
    return cut(fitting - 1) if fitting else None
