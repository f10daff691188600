"""SLSA provenance of an index and its images, as who publishes them can tell it.

BuildKit's own statements are about one image each and unsigned. This one is about the index and each image in it, and
is signed by a key that no `RUN` can reach.

Source: https://slsa.dev/spec/v1.1/provenance
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from multiarchbuild.api.foreign import parse_object

PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://multiarch.build/build-types/image/v1"
"""What externalParameters and internalParameters mean; docs/attestations.md describes it."""

_MADE_FROM: Final = "resolvedDependencies"
Dependency = Mapping[str, Any]
"""A ResourceDescriptor of in-toto: `uri`, and `digest` by algorithm."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How an image came about."""

    external: Mapping[str, Any]
    """What the user asked for."""
    platforms: Sequence[Mapping[str, Any]]
    """How each platform was built."""
    dependencies: Sequence[Dependency]
    """The source and the images that it was made from."""
    builder: str
    """URI of who vouches for the builders."""
    version: str
    """Version of the operator."""
    invocation: str
    """Namespace, name and run."""


def predicate(origin: Origin) -> dict[str, Any]:
    """Return the predicate."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": dict(origin.external),
            "internalParameters": {"platforms": [dict(platform) for platform in origin.platforms]},
            "resolvedDependencies": [dict(each) for each in distinct(origin.dependencies)],
        },
        "runDetails": {
            "builder": {"id": origin.builder, "version": {"multiarchbuild": origin.version}},
            "metadata": {"invocationId": origin.invocation},
        },
    }


def says_the_same(statement: bytes, other: bytes) -> bool:
    """Return whether two statements differ at most in the run: the same build of the same, whose image is the same."""
    return _without_run(statement) == _without_run(other) != {}


def _without_run(statement: bytes) -> dict[str, Any]:
    try:
        document = parse_object(statement, "the statement")
        document["predicate"]["runDetails"].pop("metadata", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return document


def distinct(dependencies: Iterable[Dependency]) -> Iterator[Dependency]:
    """Yield each dependency once, in order: the platforms of an image have most in common."""
    seen = set[str]()
    for each in dependencies:
        key = json.dumps(each, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield each


def is_provenance(statement: bytes) -> bool:
    """Return whether this is provenance of SLSA v1 or v0.2 that says what an image was made from, be it nothing."""
    try:
        predicate = parse_object(statement, "the statement")["predicate"]
        found = predicate["materials"] if "materials" in predicate else predicate["buildDefinition"].get(_MADE_FROM, [])
        return isinstance(found, list)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def materials(statement: bytes) -> list[Dependency]:
    """Return what BuildKit says that an image was made from, in its provenance of SLSA v1 or v0.2."""
    try:
        document = parse_object(statement, "the statement")
        predicate = document["predicate"]
        entries = predicate.get("materials") or predicate["buildDefinition"]["resolvedDependencies"]
        return [
            {"uri": str(entry["uri"]), "digest": {str(kind): str(value) for kind, value in entry["digest"].items()}}
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
