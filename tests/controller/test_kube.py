"""The client, on a real API server."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from multiarchbuild.controller.kube import (
    BUILDS,
    CONFIG_MAPS,
    PODS,
    AlreadyExists,
    Conflict,
    Invalid,
    Kube,
    NotFound,
    Transient,
    load_configuration,
)
from multiarchbuild.plan.children import RUN_LABEL

from .conftest import Kubectl, build

pytestmark = pytest.mark.api


def config_map(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}


async def identity_of(kube: Kube, namespace: str) -> dict[str, str]:
    meta = (await kube.get(BUILDS, namespace, "app"))["metadata"]
    return {key: meta[key] for key in ("name", "namespace", "resourceVersion")}


async def test_lists_are_complete_however_small_the_pages(kube: Kube, namespace: str) -> None:
    for number in range(5):
        await kube.create(CONFIG_MAPS, namespace, config_map(f"c{number}", app="x"))
    found = await kube.list(CONFIG_MAPS, namespace, label_selector="app=x", limit=2)
    assert [entry["metadata"]["name"] for entry in found] == [f"c{number}" for number in range(5)]


async def test_metadata_alone(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, namespace, config_map("c", app="x"))
    (found,) = await kube.list(CONFIG_MAPS, namespace, label_selector="app=x", metadata_only=True)
    assert found["metadata"]["name"] == "c"
    assert "data" not in found
    assert await kube.list(CONFIG_MAPS, namespace, label_selector="app=none", metadata_only=True) == []


async def test_what_exists_is_told_from_what_conflicts(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, namespace, config_map("c"))
    with pytest.raises(AlreadyExists):
        await kube.create(CONFIG_MAPS, namespace, config_map("c"))


async def test_only_the_object_that_was_meant_is_deleted(kube: Kube, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, namespace, config_map("c"))
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAPS, namespace, "c", uid="00000000-0000-0000-0000-000000000000")
    await kube.delete(CONFIG_MAPS, namespace, "c", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.delete(CONFIG_MAPS, namespace, "c", uid=made["metadata"]["uid"])


async def test_metadata_is_set_only_of_what_is_meant_and_leaves_the_rest(kube: Kube, namespace: str) -> None:
    own, run = {"annotations": {"example.com/a": "1"}}, {"labels": {RUN_LABEL: "g1"}}
    created = await kube.create(CONFIG_MAPS, namespace, config_map("c") | {"metadata": {"name": "c", **own, **run}})
    uid = created["metadata"]["uid"]
    changes = {"annotations": {"example.com/b": '{"x": "ä"}'}}

    async def set_it(uid: str, has: dict[str, dict[str, str]]) -> dict[str, Any]:
        return await kube.set_metadata(CONFIG_MAPS, namespace, "c", changes, uid=uid, has=has)

    for other in {"labels": {RUN_LABEL: "g2"}}, {"labels": {"example.com/none": "g1"}}:
        with pytest.raises(Invalid):
            await set_it(uid, other)
    with pytest.raises(Invalid):
        await set_it("00000000-0000-0000-0000-000000000000", run)
    assert (await kube.get(CONFIG_MAPS, namespace, "c"))["metadata"]["annotations"] == own["annotations"]
    made = await set_it(uid, run)
    assert made["metadata"]["annotations"] == own["annotations"] | changes["annotations"]


async def test_what_can_never_be_created_is_invalid(kube: Kube, namespace: str) -> None:
    with pytest.raises(Invalid, match=r"spec\.containers: Required value"):
        await kube.create(PODS, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}})


async def test_status_is_ours_as_a_whole(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-f", "-", stdin=build(namespace))
    identity = await identity_of(kube, namespace)
    answer = await kube.apply_status(BUILDS, identity, {"observedGeneration": 1, "columns": {"duration": "3s"}})
    first = await kube.get(BUILDS, namespace, "app")
    assert first["status"]["columns"] == {"duration": "3s"}
    assert answer["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    identity["resourceVersion"] = first["metadata"]["resourceVersion"]
    await kube.apply_status(BUILDS, identity, {"observedGeneration": 1})
    second = await kube.get(BUILDS, namespace, "app")
    assert "columns" not in second["status"], "what is left out goes"
    assert second["spec"] == first["spec"]


async def test_a_status_for_an_older_state_is_refused(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-f", "-", stdin=build(namespace))
    identity = await identity_of(kube, namespace)
    await kube.apply_status(BUILDS, identity, {"observedGeneration": 1})
    with pytest.raises(Conflict):
        await kube.apply_status(BUILDS, identity, {"observedGeneration": 0})


async def test_a_status_for_another_object_of_the_same_name_is_refused(
    kube: Kube, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "-f", "-", stdin=build(namespace))
    identity = await identity_of(kube, namespace)
    kubectl("delete", "mab", "app", "-n", namespace)
    with pytest.raises((NotFound, Conflict)):
        await kube.apply_status(BUILDS, identity, {"observedGeneration": 1})
    kubectl("create", "-f", "-", stdin=build(namespace))
    with pytest.raises(Conflict):
        await kube.apply_status(BUILDS, identity, {"observedGeneration": 1})


async def test_a_status_that_the_schema_refuses_is_invalid(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-f", "-", stdin=build(namespace))
    identity = await identity_of(kube, namespace)
    with pytest.raises(Invalid):
        await kube.apply_status(BUILDS, identity, {"observedGeneration": -2})


async def test_nobody_there_is_transient() -> None:
    async with Kube(Configuration(host="http://127.0.0.1:1")) as kube:
        with pytest.raises(Transient, match="no answer from the API server"):
            await kube.get(PODS, "default", "p")


async def test_a_kubeconfig_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(Exception, match="set KUBECONFIG"):
        await load_configuration()


async def test_what_is_served_has_the_subresources_in_it(kube: Kube) -> None:
    assert {"pods", "pods/log", "pods/resize"} <= await kube.served("v1")
    assert await kube.served("none.example.com/v1") == frozenset()


async def test_requests_of_the_pod_that_is_meant_are_changed_and_nothing_else(kube: Kube, namespace: str) -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "limits": {"memory": "2Gi"}}
    containers = [{"name": name, "image": "none", "resources": resources} for name in ("injected", "step")]
    sidecar = {"name": "buildkitd", "image": "none", "restartPolicy": "Always", "resources": resources}
    spec = {"containers": containers, "initContainers": [sidecar]}
    made = await kube.create(
        PODS, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    )
    uid = made["metadata"]["uid"]
    with pytest.raises((Conflict, Invalid)):
        await kube.resize(namespace, "a", uid="another", requests=(("step", "5m", "32Mi"),))
    changed = await kube.resize(namespace, "a", uid=uid, requests=(("step", "5m", "32Mi"), ("buildkitd", "6m", "")))
    found = {each["name"]: each for each in changed["spec"]["containers"] + changed["spec"]["initContainers"]}
    assert found["step"]["resources"]["requests"] == {"cpu": "5m", "memory": "32Mi", "ephemeral-storage": "1Gi"}
    assert found["buildkitd"]["resources"]["requests"] == {"cpu": "6m", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    assert found["injected"]["resources"] == resources
    assert found["step"]["resources"]["limits"] == {"memory": "2Gi"}
