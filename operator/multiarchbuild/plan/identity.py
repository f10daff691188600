"""Names and hashes that make every child of a run deterministic.

A reconcile that was killed after it created a child computes the same name again and finds it.
"""

import hashlib
import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import SourceStatus

_INPUTS = {"platforms", "source", "build", "output", "attestations", "reproducible"}
_EXECUTION = {"cache", "scheduling", "timeout", "retries"}
_POLLING: dict[str, Any] = {"git": {"interval"}, "oci": {"interval"}, "paths": True}
"""What says only when the source is built."""
_EXPIRY = {"expire"}
"""Changes neither the image nor how it is built."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_NAME = 63
"""A pod's name becomes its host name, a DNS label."""

_MAX_NAMES = 5
"""Names that are tried for a child."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a spec asks for, as two hashes."""

    inputs: str
    """Of what shapes the image: a change makes a new image necessary."""
    execution: str
    """Of what shapes only how it is built: a change matters while there is no image yet."""


def fingerprint(spec: Spec) -> Fingerprint:
    """Return the hashes of `spec`; suspend, history and what says when a source is built have no part.

    They are computed once for each object: a spec may have 128 KiB of inline files, and a decision asks several times.
    """
    known = _computed.get(id(spec))
    if known is not None and known[0]() is spec:
        return known[1]
    return identify(spec, Fingerprint(inputs=_hash(spec, _INPUTS), execution=_hash(spec, _EXECUTION)))


def identify(spec: Spec, known: Fingerprint) -> Fingerprint:
    """Let `fingerprint` return `known` for this object: what it stands for had more in it than is kept."""
    number = id(spec)
    _computed[number] = weakref.ref(spec, lambda _: _computed.pop(number, None)), known
    return known


_computed: dict[int, tuple[weakref.ref[Spec], Fingerprint]] = {}
"""By id, as specs have no hash that is cheaper; an entry goes with its spec."""


def run_id(
    build: MultiArchBuild,
    wanted: Fingerprint,
    request: str | None,
    source: SourceStatus | None = None,
    made_from: Sequence[str] = (),
) -> str:
    """Return the id of the run that follows the one in status: 8 hexadecimal digits. `source` is what has changed.

    `made_from` are images that are known to be new.

    The previous run has a part in it: going back to an earlier spec is a new run, which must not find the
    finished pods of the earlier one.
    """
    previous = build.status.run.id if build.status.run else ""
    changed = (source.commit or "", source.revision or "", source.digest or "") if source else ()
    return digest(build.metadata.uid, wanted.inputs, wanted.execution, request or "", previous, *changed, *made_from)[
        :8
    ]


def is_run_id(text: str) -> bool:
    """Return whether `text` may be the id of a run."""
    return re.fullmatch(r"[0-9a-f]{8}", text) is not None


def inputs_name(build: MultiArchBuild, run: str) -> str:
    """Return the name of the run's ConfigMap."""
    return _name(build.metadata.name, run, "inputs")


def record_name(build: MultiArchBuild, run: str, builder: str) -> str:
    """Return the name of the ConfigMap with what a builder has recorded."""
    return _name(build.metadata.name, run, f"{builder}-record")


def claim_name(build: MultiArchBuild, asked: str, builder: str, placement: str) -> str:
    """Return the name of the claim for what a builder keeps; `asked` is the hash of what is asked of it."""
    return _name(build.metadata.name, asked, "-".join(filter(None, (builder, placement, "cache"))))


def step_name(build: MultiArchBuild, run: str, step: str, attempt: int) -> str:
    """Return the name of the pod for a step that the whole run has one of."""
    return _name(build.metadata.name, run, f"{step}-{attempt}")


def builder_name(build: MultiArchBuild, run: str, builder: str, placement: str, attempt: int) -> str:
    """Return the name of a build pod. A fallback to QEMU, or to other nodes, is no further attempt but another pod."""
    return _name(build.metadata.name, run, "-".join(filter(None, (builder, placement, str(attempt)))))


def alternatives(name: str) -> tuple[str, ...]:
    """Return the names that a child may have, `name` first: who may read a build can compute and take them."""
    stem = name[: MAX_NAME - 7].rstrip("-")
    return (name, *(f"{stem}-{digest(name, str(number))[:6]}" for number in range(1, _MAX_NAMES)))


def builder_slug(platforms: tuple[Platform, ...]) -> str:
    """Return what names a builder in its run and its cache: the platform, or `cross` for several."""
    return platforms[0].slug if len(platforms) == 1 else "cross"


def is_commit(ref: str) -> bool:
    """Return whether `ref` is a commit in full (SHA-1 or SHA-256), which needs no resolving."""
    return _COMMIT.fullmatch(ref) is not None


def digest(*parts: str) -> str:
    """Return the SHA-256 of `parts` in hexadecimal; no two lists of parts run together."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash(spec: Spec, fields: set[str]) -> str:
    # Without defaults: a field that a later version adds must not make every build run again.
    document = spec.model_dump(
        mode="json",
        by_alias=True,
        include=fields,
        exclude={"source": _POLLING, "output": _EXPIRY, "cache": _EXPIRY},
        exclude_defaults=True,
    )
    # What is left of a part that has nothing but what is excluded.
    document = {name: part for name, part in document.items() if part != {}}
    return digest(json.dumps(document, sort_keys=True))[:16]


def _name(build: str, run: str, suffix: str) -> str:
    room = MAX_NAME - len(run) - len(suffix) - 2
    stem = build.replace(".", "-")[:room].rstrip("-")
    return f"{stem}-{run}-{suffix}"
