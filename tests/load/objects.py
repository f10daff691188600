"""The builds that are created, and the same objects as the operator writes for one of them."""

import copy
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.rig.api import Object
from tests.faults.rig.scenarios import GIT

BUILDS: Final = "/apis/multiarch.build/v1alpha1/namespaces/{}/multiarchbuilds"
ALL_BUILDS: Final = "/apis/multiarch.build/v1alpha1/multiarchbuilds"
UID_LABEL: Final = "multiarch.build/build-uid"
_OWN: Final = ("annotations", "labels", "ownerReferences")


def build(namespace: str, name: str, *, source: str = "inline", size: int = 0) -> Object:
    """Return a build of two platforms.

    Args:
        namespace: Where.
        name: Also of its image.
        source: `inline` or `git`.
        size: Bytes of an inline file beside the Dockerfile.
    """
    files = {"Dockerfile": "FROM scratch\nCOPY . /\n", **({"data": "x" * size} if size else {})}
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "platforms": ["linux/amd64", "linux/arm64"],
            "source": GIT if source == "git" else {"inline": {"files": files}},
            "output": {"image": f"registry.example.com/{namespace}/{name}", "tags": ["v1"]},
            "cache": {"mode": "Disabled"},
        },
    }


@dataclass(frozen=True)
class Written:
    """What exists of one build once it is Ready."""

    status: Object
    config_maps: tuple[Object, ...]
    pods: tuple[Object, ...]
    events: tuple[Object, ...]


def copy_of(child: Object, owner: Object, number: int) -> Object:
    """Return a child of one build as a child of another (`owner`, as it was created), to be created."""
    meta = owner["metadata"]
    made = copy.deepcopy({key: value for key, value in child.items() if key not in {"status", "metadata"}})
    old: Object = {key: copy.deepcopy(value) for key, value in child["metadata"].items() if key in _OWN}
    made["metadata"] = {**old, "namespace": meta["namespace"], "name": f"{meta['name']}-{number}"}
    if UID_LABEL in old.get("labels", {}):
        made["metadata"]["labels"][UID_LABEL] = meta["uid"]
    for reference in old.get("ownerReferences", ()):
        reference |= {"name": meta["name"], "uid": meta["uid"]}
    if (regarding := made.get("regarding")) is not None:
        regarding |= {key: meta[key] for key in ("namespace", "name", "uid")}
    if (spec := made.get("spec")) is not None and "containers" in spec:
        spec.pop("nodeName", None)
    return made


def ready(build_: Object) -> bool:
    """Return whether a build is Ready."""
    conditions: list[dict[str, Any]] = build_.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
