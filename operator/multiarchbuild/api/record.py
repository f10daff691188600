"""The build record: what happened in a run, for people who ask why it took so long or ran a step again.

A builder writes a `BuilderRecord`, the publish step makes one `BuildRecord` of all and attaches it to the index. It has
no line of a log and no value of a secret, is bounded, and is versioned by its media type: a field may be added to v1,
and whoever reads it ignores what it does not know.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from . import limits
from .base import Model, OpenEnum
from .results import CacheUse, Digest, Source

MEDIA_TYPE: Final = "application/vnd.multiarch.build.record.v1+json"
"""Of the blob, and artifact type of the manifest that attaches it."""
RUN_ANNOTATION: Final = "build.multiarch.run"
"""Annotation of that manifest: id of the run."""
SCHEMA_ID: Final = "https://multiarch.build/schemas/record.v1.json"

MAX_STEPS: Final = 300
"""Of one builder. What takes longest stays."""
MAX_BYTES: Final = 256 * 1024
"""Of the record of one builder, as JSON."""
_NAME: Final = 240
_WARNINGS: Final = 50
_MATERIALS: Final = 64
_INPUTS: Final = 16

_USER: Final = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY: Final = re.compile(r"(https?://[^\s?#'\"]+)([?#][^\s'\"]+)?")
"""A URL, also without a query: what follows is not looked at again, or a name full of URLs would take minutes."""
_LEAST: Final = 4
"""Characters of a value that is looked for: shorter ones are in every text by chance."""


def _short(size: int) -> AfterValidator:
    return AfterValidator(lambda text: text if len(text) <= size else f"{text[: size - 1]}…")


_LONGEST: Final = 1e12
"""Seconds: no two dates that can be written are further apart."""
Seconds = Annotated[float, Field(ge=0, le=_LONGEST), AfterValidator(lambda value: round(value, 3))]
Bytes = Annotated[int, Field(ge=0, le=2**63 - 1)]
Phases = dict[str, Seconds]


class Why(OpenEnum):
    """Why a step was executed and did not come from the cache."""

    CACHE_DISABLED = "CacheDisabled"
    """cache.import is false."""
    NO_CACHE = "NoCache"
    """There was no cache to read: none was written yet, or its registry did not answer."""
    INPUT_RAN = "InputRan"
    """A step that it builds on was executed: `because` names it."""
    FILES_CHANGED = "FilesChanged"
    """It copies files of the source that the cache does not have like that."""
    NOT_CACHED = "NotCached"
    """The cache does not have it: the instruction or its base image is new, or the entry is gone."""


class StepRecord(Model):
    """One step of BuildKit (a vertex)."""

    name: Annotated[str, _short(_NAME)]
    """As the log names it: the instruction of the Dockerfile, or what BuildKit does by itself (`[internal] …`)."""
    platform: Annotated[str, Field(max_length=limits.PLATFORM)] = ""
    """Platform that BuildKit says it is for; empty where it says none."""
    id: Annotated[str, Field(max_length=16)] = ""
    """Start of the digest of its definition: the same instruction upon the same inputs has the same."""
    at: Seconds | None = None
    """Seconds after the build of the builder began at which the step began; absent where it never did."""
    seconds: Seconds = 0
    """How long it was executed, without the time between two parts of it."""
    cached: bool = False
    """Whether its result came from the cache."""
    why: Why | None = None
    """Why it was executed, of an instruction of the Dockerfile, where that can be known."""
    because: Annotated[int, Field(ge=0)] | None = None
    """Position in `steps` of the step that made it necessary."""
    inputs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(lambda found: found[:_INPUTS])] = ()
    """Positions in `steps` of what it builds on."""
    bytes: Bytes = 0
    """Bytes that it received or pulled, as far as BuildKit tells."""
    error: Annotated[str, _short(_NAME)] = ""
    """What BuildKit says of its failure."""


class WarningRecord(Model):
    """What a check of BuildKit found in the Dockerfile."""

    rule: Annotated[str, _short(64)]
    """Name of the rule, such as JSONArgsRecommended."""
    text: Annotated[str, _short(limits.WARNING)]
    """What it found."""
    file: Annotated[str, _short(_NAME)] = ""
    """The Dockerfile."""
    line: Annotated[int, Field(ge=0)] | None = None
    """Its line, from 1."""
    url: Annotated[str, _short(_NAME)] = ""
    """Page about the rule."""


class Material(Model):
    """What an image was made from."""

    uri: Annotated[str, _short(512)]
    """Such as docker.io/library/node:22."""
    digest: Annotated[str, _short(limits.DIGEST)] = ""
    """Its digest, where it is known."""


class BuilderRecord(Model):
    """What one builder did: of one platform, or of several with strategy Cross."""

    platforms: Annotated[tuple[Annotated[str, Field(max_length=limits.PLATFORM)], ...], Field(max_length=16)]
    """What it built for."""
    mode: str | None = None
    """Native, Emulated or Cross."""
    node_architecture: str | None = None
    """Architecture of its node, as Kubernetes names it."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """Which try it was, from 1."""
    earlier_run: bool = False
    """Whether it is of an earlier run, which failed elsewhere: it was not built again."""
    kept: bool = False
    """Whether its BuildKit has built before, and may have had layers without asking the registry."""
    began_at: datetime | None = None
    """When the build began, by the clock of its node: `at` of the steps counts from here."""
    phases: Phases = Field(default_factory=dict)
    """Seconds of `schedule` (until it had a node), `pull` (until its container ran: sandbox, images), `start` (until
    source and BuildKit were there), `build`."""
    steps: Annotated[tuple[StepRecord, ...], Field(max_length=MAX_STEPS)] = ()
    """In the order in which they began."""
    left_out: Annotated[int, Field(ge=0)] = 0
    """Steps that there was no room for."""
    cache: CacheUse = CacheUse(hits=0, total=0)
    """Instructions from the cache, and instructions at all."""
    cache_imported: bool = False
    """Whether a registry cache was there to read."""
    transferred: Bytes = 0
    """Bytes of the source that were handed to BuildKit."""
    pulled: Bytes = 0
    """Bytes of base images and cache that were pulled."""
    size: Bytes = 0
    """Compressed bytes of what it built, config and layers: what was pushed at most, as the registry may have had some.
    BuildKit does not say how much it pushed."""
    warnings: Annotated[tuple[WarningRecord, ...], AfterValidator(lambda found: found[:_WARNINGS])] = ()
    """What the checks of the Dockerfile found."""
    materials: Annotated[tuple[Material, ...], AfterValidator(lambda found: found[:_MATERIALS])] = ()
    """Base images and other inputs."""
    error: Annotated[str, _short(_NAME)] = ""
    """Reason of its failure; status and log have the rest."""


class BuildRecord(Model):
    """What happened in one run."""

    version: str = "v1"
    """Of this schema."""
    name: str
    """Name of the build."""
    namespace: str
    """Its namespace."""
    run: str
    """Id of the run."""
    trigger: str | None = None
    """Why it was started: SpecChanged, SourceChanged, Requested."""
    operator: str = ""
    """Version of the operator."""
    image: Annotated[str, Field(max_length=384)] = ""
    """Repository that was pushed to."""
    digest: Digest | None = None
    """Digest of the index; absent in the record of a run that failed."""
    source: Source | None = None
    """What exactly was built."""
    started_at: datetime | None = None
    """When the run was started, by the operator's clock."""
    phases: Phases = Field(default_factory=dict)
    """Seconds of `queue` (until its turn came), `resolve` (pinning the source), `publish` (the index, until this record
    was made)."""
    builders: Annotated[tuple[BuilderRecord, ...], Field(max_length=limits.PLATFORMS)] = ()
    """One for each builder."""


def dump(record: BuildRecord | BuilderRecord) -> bytes:
    """Return a record as it is stored; of a builder's, at most MAX_BYTES: steps are left out from the shortest on."""
    encoded = _encode(record)
    while isinstance(record, BuilderRecord) and len(encoded) > MAX_BYTES and record.steps:
        record = bounded(record, record.steps, len(record.steps) * 3 // 4)
        encoded = _encode(record)
    return encoded


def bounded(record: BuilderRecord, steps: Sequence[StepRecord], most: int = MAX_STEPS) -> BuilderRecord:
    """Return `record` with at most `most` of `steps`: the longest, and what failed, in their order."""
    ranked = sorted(range(len(steps)), key=lambda at: (not steps[at].error, -steps[at].seconds, steps[at].cached, at))
    kept = sorted(ranked[:most])
    position = {old: new for new, old in enumerate(kept)}

    def moved(step: StepRecord) -> StepRecord:
        inputs = tuple(position[each] for each in step.inputs if each in position)
        because = position.get(step.because) if step.because is not None else None
        return step.model_copy(update={"inputs": inputs, "because": because})

    left_out = record.left_out + len(steps) - len(kept)
    return record.model_copy(update={"steps": tuple(moved(steps[at]) for at in kept), "left_out": left_out})


def _encode(record: BuildRecord | BuilderRecord) -> bytes:
    document = record.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(record, BuildRecord):
        document = {"version": record.version, **document}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def redacted(text: str, values: Mapping[str, str]) -> str:
    """Return text without what may be a secret: users and queries of URLs, and `values`, each as `$NAME`.

    A Dockerfile can put the value of a build argument into the name of a step, such as of a COPY or ADD.
    """
    text = _QUERY.sub(lambda url: f"{url[1]}?…" if url[2] else url[1], _USER.sub("", text))
    for name, value in sorted(values.items(), key=lambda each: -len(each[1])):
        if len(value) >= _LEAST:
            text = text.replace(value, f"${name}")
    return text


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of what is attached."""
    document = BuildRecord.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **document}
