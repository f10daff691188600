"""Which events matter: those that show something new of what a decision looks at.

The API server sends an event for each write, the operator's own included. Without a filter each write of a status has
the build looked at again, and a status that is never twice the same would be written without end.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, NamedTuple

from multiarchbuild.api.resource import GROUP, KIND, READ_ANNOTATIONS
from multiarchbuild.plan.children import pod_from, user_namespaces

View = Callable[[Mapping[str, Any]], Hashable]
"""Returns what a decision looks at in the manifest of an object."""

DELETED: Final = "DELETED"
"""Type of the event for an object that is gone."""


class Changes:
    """Remembers what the last event of each object showed, as a hash: there may be many thousands."""

    def __init__(self, view: View) -> None:
        """`view` says what counts as a change."""
        self._view = view
        self._known: dict[tuple[str, str], int] = {}

    def changed(self, kind: str, manifest: Mapping[str, Any]) -> bool:
        """Return whether an event of this type shows something new."""
        meta = manifest["metadata"]
        name = meta.get("namespace", ""), meta["name"]
        if kind == DELETED:
            self._known.pop(name, None)
            return True
        now = hash((meta["uid"], self._view(manifest)))
        changed = self._known.get(name) != now
        self._known[name] = now
        return changed


def build_view(build: Mapping[str, Any]) -> Hashable:
    """Return what people change of a MultiArchBuild: never its status, which is the operator's own."""
    meta = build["metadata"]
    annotations = meta.get("annotations") or {}
    return meta["generation"], "deletionTimestamp" in meta, tuple(map(annotations.get, READ_ANNOTATIONS))


def pod_view(pod: Mapping[str, Any]) -> Hashable:
    """Return what a decision sees of a pod: neither its other labels and annotations nor its spec."""
    return pod_from(pod)


def node_view(node: Mapping[str, Any]) -> Hashable:
    """Return what placement looks at in a Node. Heartbeats, of which each node sends many, are no news."""
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", ())}
    spec = node.get("spec", {})
    taints = tuple((taint["key"], taint.get("value"), taint["effect"]) for taint in spec.get("taints", ()))
    labels = tuple(sorted(node["metadata"].get("labels", {}).items()))
    return (
        conditions.get("Ready"),
        conditions.get("DiskPressure") == "True",
        spec.get("unschedulable", False),
        taints,
        labels,
        user_namespaces(node),
    )


def flux_view(source: Mapping[str, Any]) -> Hashable:
    """Return what is read of an object of Flux: its artifact, and why there is none."""
    status = source.get("status", {})
    artifact = status.get("artifact") or {}
    said = tuple(entry.get("message") for entry in status.get("conditions", ()) if entry.get("type") == "Ready")
    return tuple(str(artifact.get(name)) for name in ("url", "revision", "digest")), said


class Owner(NamedTuple):
    """A MultiArchBuild in the namespace of what it controls."""

    name: str
    uid: str


def owner_of(metadata: Mapping[str, Any]) -> Owner | None:
    """Return the MultiArchBuild that controls an object, if one does."""
    for reference in metadata.get("ownerReferences", ()):
        group = reference["apiVersion"].partition("/")[0]
        if reference.get("controller") and reference["kind"] == KIND and group == GROUP:
            return Owner(reference["name"], reference["uid"])
    return None
