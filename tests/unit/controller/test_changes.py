"""Which events matter."""

import copy
from typing import Any

import pytest

from multiarchbuild.api.resource import READ_ANNOTATIONS
from multiarchbuild.controller.changes import Changes, build_view, node_view, owner_of, pod_view
from multiarchbuild.plan.children import Role
from tests.unit.plan.world import World, timestamp


def seen(changes: Changes, manifest: dict[str, Any], kind: str = "MODIFIED") -> bool:
    return changes.changed(kind, copy.deepcopy(manifest))


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
    changes = Changes(node_view)
    assert seen(changes, node(), "ADDED")
    assert seen(changes, node(**change))


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
    changes = Changes(node_view)
    assert seen(changes, node(), "ADDED")
    assert not seen(changes, node(**change))


def test_what_the_operator_writes_about_a_build_is_no_news() -> None:
    world, changes = World(), Changes(build_view)
    assert seen(changes, world.resource, "ADDED")
    world.reconcile()
    assert world.resource["status"]
    assert not seen(changes, world.resource)
    world.resource["metadata"] |= {"resourceVersion": "7", "managedFields": [{"manager": "multiarchbuild"}]}
    world.annotate("example.com/note", "hello")
    world.resource["metadata"]["labels"] = {"team": "a"}
    assert not seen(changes, world.resource)


def test_what_people_change_of_a_build_is_news() -> None:
    world, changes = World(), Changes(build_view)
    assert seen(changes, world.resource, "ADDED")
    world.edit(suspend=True)
    assert seen(changes, world.resource)
    for annotation in READ_ANNOTATIONS:
        world.annotate(annotation, "2026-01-31T12:00:00Z")
        assert seen(changes, world.resource)
        assert not seen(changes, world.resource)
    world.resource["metadata"]["deletionTimestamp"] = timestamp(world.now)
    assert seen(changes, world.resource)
    assert seen(changes, world.resource, "DELETED")
    assert seen(changes, world.resource, "ADDED"), "it was made again"


def test_a_list_of_what_is_known_is_no_news() -> None:
    world, changes = World(), Changes(build_view)
    assert changes.changed("ADDED", world.resource)
    assert not changes.changed("ADDED", world.resource), "the stream was opened again"
    world.resource["metadata"]["uid"] = "another"
    assert changes.changed("ADDED", world.resource)


def test_each_state_of_a_pod_that_a_decision_sees_is_news() -> None:
    world, changes = World(), Changes(pod_view)
    world.reconcile()
    pod = world.pod(Role.BUILD)
    assert seen(changes, pod, "ADDED")
    for step in (world.schedule, world.start, world.succeed, world.evict):
        step(pod)
        assert seen(changes, pod), step
        assert not seen(changes, pod), step


def test_what_a_decision_does_not_see_of_a_pod_is_no_news() -> None:
    world, changes = World(), Changes(pod_view)
    world.reconcile()
    pod = world.pod(Role.BUILD)
    assert seen(changes, pod, "ADDED")
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    pod["metadata"].setdefault("annotations", {})["cni.example.com/ip"] = "10.0.0.1"
    pod["status"] |= {"podIP": "10.0.0.1", "qosClass": "Burstable", "hostIP": "10.0.0.2"}
    assert not seen(changes, pod)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"multiarch.build/role": "kept", "multiarch.build/attempt": "1"},
        {"multiarch.build/role": "build", "multiarch.build/attempt": "1.5"},
        {"multiarch.build/role": "build", "multiarch.build/attempt": "9" * 63},
    ],
)
def test_a_pod_of_another_version_of_the_operator_can_be_read(labels: dict[str, str]) -> None:
    world = World()
    world.reconcile()
    pod = world.pod(Role.BUILD)
    pod["metadata"]["labels"] = labels
    pod["metadata"]["annotations"] = {"multiarch.build/platforms": "linux/sparc64,plan9", "multiarch.build/mode": "Vm"}
    assert seen(Changes(pod_view), pod, "ADDED")
    world.settle()


def reference(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "name": "app",
        "uid": "u",
        "controller": True,
    } | changes


def test_a_pod_belongs_to_the_build_that_controls_it() -> None:
    assert owner_of({"ownerReferences": [reference(kind="Other", controller=False), reference()]}) == ("app", "u")


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
