"""Metadata of a run's children: what ties them to their build."""

from collections.abc import Mapping
from typing import Any

from multiarchbuild.api.resource import GROUP, KIND, VERSION, MultiArchBuild
from multiarchbuild.plan.children import RUN_LABEL, UID_LABEL

MANAGED_BY = "multiarchbuild"


def metadata(
    build: MultiArchBuild,
    name: str,
    run: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a child of `build`, of this run or of none; deleting the build deletes the child."""
    result: dict[str, Any] = {
        "name": name,
        "namespace": build.metadata.namespace,
        "labels": {
            **(labels or {}),
            "app.kubernetes.io/managed-by": MANAGED_BY,
            UID_LABEL: build.metadata.uid,
            **({RUN_LABEL: run} if run else {}),
        },
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "name": build.metadata.name,
                "uid": build.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
    if annotations:
        result["annotations"] = dict(annotations)
    return result
