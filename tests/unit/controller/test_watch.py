"""Which events matter."""

from typing import Any

import pytest

from multiarchbuild.controller.watch import owner_of, placement_view


def node(**changes: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": {"kubernetes.io/arch": "arm64"}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
            "images": [],
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value
    return manifest


@pytest.mark.parametrize(
    "change",
    [
        {"metadata__labels": {"kubernetes.io/arch": "arm64", "multiarch.build/aarch32": "true"}},
        {"metadata__uid": "another"},
        {"spec__unschedulable": True},
        {"spec__taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
        {"status__conditions": [{"type": "Ready", "status": "Unknown"}]},
        {"status__runtimeHandlers": [{"name": "", "features": {"userNamespaces": True}}]},
    ],
)
def test_placement_looks_at(change: dict[str, Any]) -> None:
    assert placement_view(node(**change)) != placement_view(node())


@pytest.mark.parametrize(
    "change",
    [
        {"metadata__resourceVersion": "2"},
        {"status__images": [{"names": ["x"]}]},
        {
            "status__conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:05:00Z"},
                {"type": "DiskPressure", "status": "False"},
            ]
        },
    ],
)
def test_a_heartbeat_is_no_news(change: dict[str, Any]) -> None:
    assert placement_view(node(**change)) == placement_view(node())


def reference(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "name": "app",
        "uid": "u",
        "controller": True,
    } | changes


def test_a_pod_belongs_to_the_build_that_controls_it() -> None:
    assert owner_of({"ownerReferences": [reference(kind="Other", controller=False), reference()]}) == "app"


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"ownerReferences": [reference(controller=False)]},
        {"ownerReferences": [reference(kind="Job")]},
        {"ownerReferences": [reference(apiVersion="other.example/v1")]},
    ],
)
def test_other_pods_belong_to_nobody(meta: dict[str, Any]) -> None:
    assert owner_of(meta) is None
