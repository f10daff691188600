"""Names and hashes that make every child of a run deterministic.

A reconcile that was killed after it created a child computes the same name again and finds it.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import SourceStatus

_INPUTS = {"platforms", "source", "build", "output", "attestations", "reproducible"}
_EXECUTION = {"cache", "scheduling", "timeout", "retries"}
_POLLING = {"git": {"interval"}, "oci": {"interval"}}
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_NAME = 63
"""A pod's name becomes its host name, a DNS label."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a spec asks for, as two hashes."""

    inputs: str
    """Of what shapes the image: a change makes a new image necessary."""
    execution: str
    """Of what shapes only how it is built: a change matters while there is no image yet."""


def fingerprint(spec: Spec) -> Fingerprint:
    """Return the hashes of `spec`; suspend, history and the interval of a polled source have no part in them."""
    return Fingerprint(inputs=_hash(spec, _INPUTS), execution=_hash(spec, _EXECUTION))


def run_id(build: MultiArchBuild, wanted: Fingerprint, request: str | None, source: SourceStatus | None = None) -> str:
    """Return the id of the run that follows the one in status: 8 hexadecimal digits. `source` is what has changed.

    The previous run has a part in it: going back to an earlier spec is a new run, which must not find the
    finished pods of the earlier one.
    """
    previous = build.status.run.id if build.status.run else ""
    changed = (source.commit or "", source.revision or "", source.digest or "") if source else ()
    return digest(build.metadata.uid, wanted.inputs, wanted.execution, request or "", previous, *changed)[:8]


def inputs_name(build: MultiArchBuild, run: str) -> str:
    """Return the name of the run's ConfigMap."""
    return _name(build.metadata.name, run, "inputs")


def step_name(build: MultiArchBuild, run: str, step: str, attempt: int) -> str:
    """Return the name of the pod for a step that the whole run has one of."""
    return _name(build.metadata.name, run, f"{step}-{attempt}")


def builder_name(build: MultiArchBuild, run: str, builder: str, placement: str, attempt: int) -> str:
    """Return the name of a build pod. A fallback to QEMU, or to other nodes, is no further attempt but another pod."""
    return _name(build.metadata.name, run, "-".join(filter(None, (builder, placement, str(attempt)))))


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
        mode="json", by_alias=True, include=fields, exclude={"source": _POLLING}, exclude_defaults=True
    )
    return digest(json.dumps(document, sort_keys=True))[:16]


def _name(build: str, run: str, suffix: str) -> str:
    room = MAX_NAME - len(run) - len(suffix) - 2
    stem = build.replace(".", "-")[:room].rstrip("-")
    return f"{stem}-{run}-{suffix}"
