"""Which images a build took files from, and whether they are for the platform that is built.

BuildKit takes an image that was pushed as a plain manifest for every platform, and only warns
(`InvalidBaseImagePlatform`, of the first platform of a build alone): the index then says arm64 and has programs for
amd64. What an image is for is read from buildkitd's content store, which has the very bytes that the build used.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api import limits
from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.api.platforms import Platform

from .progress import Progress

_PULLED = re.compile(
    r"^(?:(?P<context>\[context [^\]]+\]) |\[(?:[^\]]*[^\]\d])?\d+/\d+\] FROM |FROM )"
    r"(?P<image>[^\s@]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?$"
)
"""Name of a step that pulls: of FROM, of COPY --from=IMAGE, of a named context (which need not have a digest)."""
_UNKNOWN = frozenset({"", "unknown"})

Blob = Callable[[str], bytes | None]
"""Returns the bytes with a digest, or None where nobody has them."""
Manifest = Callable[[str], bytes | None]
"""Returns the manifest or index that an image without a digest is, or None."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image that a build took files from."""

    image: str
    digest: str | None
    platforms: tuple[Platform, ...]
    """What it has to be for."""
    explicit: bool
    """Whether the Dockerfile says another platform than what is built (`FROM --platform=…`)."""


@dataclass(frozen=True, slots=True)
class WrongBase:
    """An image that is not for a platform it was used for."""

    image: str
    wanted: Platform
    has: str

    def __str__(self) -> str:
        return (
            f"{self.image} has no image for {self.wanted}, only for {self.has}: use an image that has one, or remove "
            f"the platform. To use it for {self.wanted} nevertheless, give it a stage of its own: "
            f"FROM --platform={self.has} {self.image}"
        )


def pulled(progress: Progress, targets: Sequence[Platform]) -> Iterator[Pulled]:
    """Return the images that a build for `targets` took files from."""
    for vertex in progress.vertexes.values():
        match = _PULLED.match(vertex.name)
        if match is None:
            continue
        own = _parse(vertex.platform)
        # COPY --from=IMAGE and named contexts are for what is built, and are not marked by it.
        yield Pulled(
            match["image"], match["digest"], (own,) if own else tuple(targets), bool(own and own not in targets)
        )


def moving(images: Iterable[Pulled], pins: str) -> tuple[str, ...]:
    """Return those of `images` that a tag names, as `registry/repository:tag@digest`.

    `pins` is all that says what is built: a digest that somebody wrote there does not move.
    """
    named = (
        (image.image if ":" in image.image.rpartition("/")[2] else f"{image.image}:latest", image.digest)
        for image in images
        if image.digest and image.digest not in pins
    )
    return tuple(sorted({f"{name}@{digest}" for name, digest in named if len(f"{name}@{digest}") <= limits.BASE}))


def wrong_base(images: Iterable[Pulled], blob: Blob, manifest: Manifest) -> WrongBase | None:
    """Return the first of `images` that is not for its platform; what cannot be read is not judged."""
    for image in images:
        raw = blob(image.digest) if image.digest else manifest(image.image)
        document = _read(raw)
        has = _platforms(document, blob)
        for wanted in image.platforms:
            if has and not any(_serves(each, wanted) for each in has):
                return WrongBase(image.image, wanted, ", ".join(sorted({_name(each) for each in has})))
    return None


def _platforms(document: Mapping[str, Any], blob: Blob) -> list[Mapping[str, Any]]:
    """Return the platforms of an image, empty where it does not say them."""
    if "manifests" in document:
        found = [entry.get("platform") or {} for entry in document["manifests"]]
    else:
        config = document.get("config") or {}
        found = [_read(blob(config.get("digest", "")))]
    known = [each for each in found if str(each.get("architecture", "")) not in _UNKNOWN]
    return known if len(known) == len(found) or "manifests" in document else []


def _serves(has: Mapping[str, Any], wanted: Platform) -> bool:
    """Return whether an image is for a platform: its variant may be an older one, which every newer processor runs."""
    if (has.get("os", "linux"), has.get("architecture")) != (wanted.os, wanted.architecture):
        return False
    own = has.get("variant", "")
    return not own or not wanted.variant or own <= wanted.variant


def _name(has: Mapping[str, Any]) -> str:
    variant = "" if (has.get("architecture"), has.get("variant")) == ("arm64", "v8") else has.get("variant", "")
    return "/".join(filter(None, (has.get("os", "linux"), has.get("architecture", ""), variant)))


def _parse(platform: str) -> Platform | None:
    try:
        return Platform.parse(platform)
    except ValueError:  # none, or one that no build can be for
        return None


def _read(raw: bytes | None) -> Mapping[str, Any]:
    try:
        return parse_object(raw, "the image") if raw else {}
    except NonsenseError:
        return {}
