"""The claims of volumes that outlive the pods of builders."""

from typing import Any

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import EnsureClaim
from multiarchbuild.plan.children import (
    CACHE_ROLE,
    PLACEMENT_ANNOTATION,
    PLATFORMS_ANNOTATION,
    ROLE_LABEL,
    VOLUME_LABEL,
)

from .meta import metadata


def claim(action: EnsureClaim, build: MultiArchBuild) -> dict[str, Any]:
    """Return the v1 PersistentVolumeClaim: it goes with its build, and with nothing else of it."""
    annotations = {PLATFORMS_ANNOTATION: ",".join(map(str, action.platforms))}
    if action.placement:
        annotations[PLACEMENT_ANNOTATION] = action.placement
    spec: dict[str, Any] = {
        "accessModes": [str(action.access_mode)],
        "resources": {"requests": {"storage": action.size}},
    }
    if action.storage_class:
        spec["storageClassName"] = action.storage_class
    labels = {ROLE_LABEL: CACHE_ROLE, VOLUME_LABEL: action.asked}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(build, action.name, labels=labels, annotations=annotations),
        "spec": spec,
    }
