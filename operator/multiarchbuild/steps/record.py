"""What a builder records of its build, for `api.record`: made from what BuildKit has told while it built."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.provenance import Provenance
from multiarchbuild.api.record import (
    BuilderRecord,
    Material,
    StepRecord,
    WarningRecord,
    Why,
    bounded,
    dump,
    redacted,
)
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.index import digest_of

from . import bases
from .errors import StepError
from .log import say
from .mounts import Mounts
from .progress import Progress, Vertex
from .registries import client

_CONTEXT = re.compile(r"^\[[^\]]*internal\] load build context")
_IMPORT = "importing cache manifest from "
_TRANSFER = "transferring "
_LAYER = "sha256:"
_EVER = datetime.max.replace(tzinfo=UTC)
_CONNECT, _READ = 2.0, 5.0
"""Seconds that a record may wait for the registry."""


@dataclass(slots=True)
class Facts:
    """What is known of a build besides its progress."""

    spec: Spec
    platforms: tuple[str, ...]
    warm: bool
    """Whether its BuildKit has built before."""
    began: float
    """When the step began (`time.monotonic`)."""
    ready: float
    """When source and BuildKit were there."""
    ended: float | None = None
    """When the build had ended; None before."""

    def record(self, progress: Progress, error: str = "") -> bytes:
        """Return what is stored of a build that has ended, well or with `error`."""
        return dump(builder_record(progress, self, error))


@contextmanager
def recording(progress: Progress, facts: Facts) -> Iterator[None]:
    """Give a failure of the build what was recorded until then."""
    try:
        yield
    except StepError as error:
        error.record = facts.record(progress, str(error.reason))
        raise


def store(mounts: Mounts, keychain: Keychain, record: bytes) -> str | None:
    """Push a record for the publish step; return its digest, or None where the registry does not take it at once.

    No image waits for its record, and none fails for it.
    """
    spec, digest = mounts.inputs.spec, digest_of(record)
    if not spec.attestations.record:
        return None
    try:
        impatient(mounts, keychain).put_blob(digest, record, len(record))
    except RegistryError as error:
        say(f"what was recorded of this build is not stored: {error}")
        return None
    return digest


def impatient(mounts: Mounts, keychain: Keychain) -> Client:
    """Return a client of its own for records: it waits no longer than people would, and has its own token."""
    image = mounts.inputs.spec.output.image
    return client(mounts, keychain, image, connect=_CONNECT, read=_READ, patient=False)


def builder_record(progress: Progress, facts: Facts, error: str = "") -> BuilderRecord:
    """Return the record of a build that has ended, well or with `error`."""
    arguments = {} if facts.spec.attestations.provenance is Provenance.MAX else facts.spec.build.args
    vertexes = sorted(progress.vertexes.items(), key=lambda each: _order(each[1]))
    position = {digest: at for at, (digest, _) in enumerate(vertexes)}
    known = [vertex for _, vertex in vertexes]
    began = min((vertex.began for vertex in known if vertex.began), default=None)
    imported = any(vertex.name.startswith(_IMPORT) and vertex.completed and not vertex.error for vertex in known)
    reasons = _reasons(known, position, imported=imported or facts.warm, disabled=not facts.spec.cache.import_)
    ended = facts.ended or time.monotonic()
    return bounded(
        BuilderRecord(
            platforms=facts.platforms,
            kept=facts.warm,
            began_at=began,
            phases={"start": facts.ready - facts.began, "build": ended - facts.ready},
            cache=progress.cache,
            cache_imported=imported,
            transferred=_moved(known, lambda _, name: name.startswith(_TRANSFER)),
            pulled=_moved(known, lambda vertex, name: name.startswith(_LAYER) and not _exports(vertex)),
            warnings=tuple(_warnings(progress, facts.spec, arguments)),
            materials=tuple(_materials(progress, facts, arguments)),
            error=redacted(error, arguments),
        ),
        [
            StepRecord(
                name=redacted(vertex.name, arguments),
                platform=vertex.platform,
                id=digest.partition(":")[2][:16],
                at=_since(began, vertex.began),
                seconds=_seconds(vertex),
                cached=vertex.cached,
                why=reasons[at][0] if at in reasons else None,
                because=reasons[at][1] if at in reasons else None,
                inputs=tuple(position[each] for each in vertex.inputs if each in position),
                bytes=sum(vertex.moved.values()),
                error=redacted(vertex.error, arguments),
            )
            for at, (digest, vertex) in enumerate(vertexes)
        ],
    )


def _order(vertex: Vertex) -> tuple[datetime, int]:
    return (vertex.began or _EVER, vertex.number)


def _since(began: datetime | None, moment: datetime | None) -> float | None:
    return max((moment - began).total_seconds(), 0.0) if began and moment else None


def _seconds(vertex: Vertex) -> float:
    if vertex.cached:
        return 0.0
    return sum(max((end - start).total_seconds(), 0.0) for start, end in vertex.spans.items())


def _exports(vertex: Vertex) -> bool:
    return vertex.name.startswith("exporting ")


def _moved(vertexes: Iterable[Vertex], counts: Callable[[Vertex, str], bool]) -> int:
    return sum(size for vertex in vertexes for name, size in vertex.moved.items() if counts(vertex, name))


def _reasons(
    vertexes: Sequence[Vertex], position: Mapping[str, int], *, imported: bool, disabled: bool
) -> dict[int, tuple[Why, int | None]]:
    """Return why each instruction that was executed did not come from the cache, and which step made it necessary."""
    found: dict[int, tuple[Why, int | None]] = {}
    for at, vertex in enumerate(vertexes):
        if not vertex.is_instruction or vertex.cached or vertex.began is None:
            continue
        inputs = [position[each] for each in vertex.inputs if each in position]
        ran = next((each for each in inputs if vertexes[each].is_instruction and not vertexes[each].cached), None)
        files = next((each for each in inputs if _CONTEXT.match(vertexes[each].name)), None)
        if disabled:
            found[at] = (Why.CACHE_DISABLED, None)
        elif not imported:
            found[at] = (Why.NO_CACHE, None)
        elif ran is not None:
            found[at] = (Why.INPUT_RAN, ran)
        elif files is not None:
            found[at] = (Why.FILES_CHANGED, files)
        else:
            found[at] = (Why.NOT_CACHED, None)
    return found


def _warnings(progress: Progress, spec: Spec, arguments: Mapping[str, str]) -> Iterable[WarningRecord]:
    file = str(PurePosixPath(spec.build.dockerfile))
    for finding in dict.fromkeys(progress.warnings):
        text = redacted(finding.text, arguments)
        yield WarningRecord(
            rule=finding.rule, text=text, file=file if finding.line else "", line=finding.line, url=finding.url
        )


def _materials(progress: Progress, facts: Facts, arguments: Mapping[str, str]) -> Iterable[Material]:
    targets = [Platform.parse(name) for name in facts.platforms]
    found = {(each.image, each.digest) for each in bases.pulled(progress, targets)}
    for image, digest in sorted(found, key=str):
        yield Material(uri=redacted(image, arguments), digest=digest or "")
