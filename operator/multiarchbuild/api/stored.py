"""Reading what is stored in the cluster, by whichever version of the operator it was written.

A status is the operator's own: what cannot be read of it is left out, so that a build goes on after a rollback. A spec
is what somebody wants: a value that is not understood is an error, which says what to do.
"""

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .resource import MultiArchBuild
from .status import Status

Path = tuple[str | int, ...]


class Stored(NamedTuple):
    """A build that was read."""

    build: MultiArchBuild
    lost: tuple[str, ...]
    """Paths of what was cut or left out of its status."""


def read_build(manifest: Mapping[str, Any]) -> Stored:
    """Return a MultiArchBuild as the API server has it, its status as far as it can be read.

    Raises:
        ValidationError: The spec, or the metadata, can't be read.
    """
    build = MultiArchBuild.model_validate({**manifest, "status": {}})
    status, lost = read_status(manifest.get("status"))
    return Stored(build.model_copy(update={"status": status}), lost)


def read_status(document: Any) -> tuple[Status, tuple[str, ...]]:
    """Return as much of a status as can be read, and the paths of what was cut or left out."""
    lost: list[str] = []
    document = document if isinstance(document, Mapping) else {}
    while True:
        try:
            return Status.model_validate(document), tuple(lost)
        except ValidationError as error:
            if not lost:
                document = copy.deepcopy(document)
            lost.append(_mend(document, error.errors(include_url=False)[0]))


def _mend(document: dict[str, Any], error: ErrorDetails) -> str:
    """Cut what is too long and remove what can't be read, or what can't be read without what is missing.

    Each call makes the document smaller, and an empty one is a valid status.
    """
    path, parent = _existing(document, error["loc"])
    most = (error.get("ctx") or {}).get("max_length")
    value = parent[path[-1]] if path else document
    if error["loc"] == path and isinstance(most, int) and isinstance(value, str | list) and 0 < most < len(value):
        parent[path[-1]] = value[:most]
    elif path:
        del parent[path[-1]]
    else:
        document.clear()
    return ".".join(map(str, path)) or "all of it"


def _existing(document: Any, location: Sequence[str | int]) -> tuple[Path, Any]:
    """Return the part of `location` that is in the document, and the map or list that holds its end."""
    path: Path = ()
    parent, value = None, document
    for part in location:
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if not inside:
            break
        path, parent, value = (*path, part), value, value[part]
    return path, parent


_UNDECLARED = re.compile(r"\.status((?:\.\w+|\[[^\]]*\])+): field not declared in schema")


def undeclared(refusal: str) -> frozenset[tuple[str, ...]]:
    """Return the fields of status that the CustomResourceDefinition in the cluster does not have.

    Server-side apply refuses them, where an update drops them. Which ones they are is in its words alone
    (https://sigs.k8s.io/structured-merge-diff); a path consists of names, whichever item of a list it leads through.
    """
    return frozenset(
        tuple(re.findall(r"\.(\w+)", re.sub(r"\[[^\]]*\]", "", path))) for path in _UNDECLARED.findall(refusal)
    )


def without(document: Any, paths: Collection[tuple[str, ...]]) -> Any:
    """Return a copy of `document` without what these paths lead to."""
    if isinstance(document, list):
        return [without(each, paths) for each in document]
    if not isinstance(document, dict):
        return document
    inside = {name: {path[1:] for path in paths if path[0] == name} for name in document}
    return {name: without(value, inside[name]) for name, value in document.items() if () not in inside[name]}


def newer_than_operator(error: ValidationError) -> bool:
    """Return whether an object whose spec the API server accepted was held to a newer schema than this version's.

    All bounds and values are in both, so that where only ours refuses something, theirs has more.
    """
    return any(entry["type"] not in {"value_error", "assertion_error"} for entry in error.errors())
