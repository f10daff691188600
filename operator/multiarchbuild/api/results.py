"""What a step leaves in its container's termination message: at most 4096 bytes of JSON.

The limit is the kubelet's (`/dev/termination-log`, Kubernetes "Determine the Reason for Pod Failure").
Steps write these models, the operator reads them; nothing else passes between the two. What others have written,
such as a commit's author, is cut to what status has room for: nothing that a step met makes its report unreadable.
"""

import json
from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from . import limits
from .base import StoredModel
from .reasons import Reason

MAX_BYTES = 4096
"""The kubelet keeps at most this many bytes of a termination message."""

_END_OF_TIME = 253402300799
"""9999-12-31T23:59:59Z: a commit may claim any time, RFC 3339 has four digits for the year."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Source(StoredModel):
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


class PushedImage(StoredModel):
    """What the builder of a platform pushed."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    digest: Digest
    """Of a manifest, or of an index that has the platform."""


class Pushed(StoredModel):
    """What the builders of a run pushed, in the order of spec.platforms."""

    images: Annotated[tuple[PushedImage, ...], Field(max_length=limits.PLATFORMS)]


class CacheUse(StoredModel):
    """How many steps of a build came from the cache."""

    hits: Annotated[int, Field(ge=0)]
    """Steps that came from the cache."""
    total: Annotated[int, Field(ge=0)]
    """Steps of the build."""


class Failure(StoredModel):
    """A step that failed: why, and what to do."""

    kind: Literal["failure"] = "failure"
    reason: Reason
    message: Annotated[str, AfterValidator(lambda text: text[: limits.MESSAGE])]
    log_tail: Annotated[str, AfterValidator(lambda text: text[-limits.LOG_TAIL :])] = ""


class Resolved(StoredModel):
    """Result of the resolve step."""

    kind: Literal["resolved"] = "resolved"
    source: Source


class Built(StoredModel):
    """Result of the build step: what one builder pushed, by digest."""

    kind: Literal["built"] = "built"
    digest: Digest
    """Digest of the manifest or index that BuildKit pushed."""
    cache: CacheUse
    source_time: int | None = None


class PublishedPlatform(StoredModel):
    """One image of the index."""

    platform: Annotated[str, Field(max_length=limits.PLATFORM)]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    """Compressed bytes of config and layers."""


class Published(StoredModel):
    """Result of the publish step: one index, verified, signed where that is asked for, and tagged."""

    kind: Literal["published"] = "published"
    digest: Digest
    tags: Annotated[tuple[Annotated[str, Field(max_length=limits.TAG)], ...], Field(max_length=limits.TAGS)]
    platforms: Annotated[tuple[PublishedPlatform, ...], Field(max_length=limits.PLATFORMS)]
    signature: Digest | None = None
    """Digest of the manifest with the signatures of the index."""


Result = Annotated[Failure | Resolved | Built | Published, Field(discriminator="kind")]


class Termination(StoredModel):
    """Envelope, so that one parser reads every step."""

    result: Result


def dump(result: Failure | Resolved | Built | Published) -> bytes:
    """Return the termination message for `result`, at most MAX_BYTES long.

    Of a failure the log tail is cut first, from its beginning, then the message, from its end. The operator knows the
    tags of what is published: they are left out where there is no room for them.
    """
    if isinstance(result, Published) and len(_encode(result)) > MAX_BYTES:
        result = result.model_copy(update={"tags": ()})
    if isinstance(result, Failure):
        result = _fit(result)
    return _encode(result)


def load(message: str) -> Failure | Resolved | Built | Published | None:
    """Return the result in a termination message, or None if there is none (the container was killed)."""
    try:
        return Termination.model_validate_json(message).result
    except ValidationError:
        return None


def _encode(result: Failure | Resolved | Built | Published) -> bytes:
    document = Termination(result=result).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _fit(failure: Failure) -> Failure:
    def with_tail(size: int) -> Failure:
        # The end of a log says why it failed.
        return failure.model_copy(update={"log_tail": failure.log_tail[len(failure.log_tail) - size :]})

    def with_message(size: int) -> Failure:
        return failure.model_copy(update={"log_tail": "", "message": failure.message[:size]})

    return _longest(len(failure.log_tail), with_tail) or _longest(len(failure.message), with_message) or with_message(0)


def _longest(size: int, cut: Callable[[int], Failure]) -> Failure | None:
    """Return the longest of `cut(0)` to `cut(size)` that fits, or None. A character takes from one to six bytes."""
    fitting = bisect_left(range(size + 1), x=True, key=lambda each: len(_encode(cut(each))) > MAX_BYTES)
    return cut(fitting - 1) if fitting else None
