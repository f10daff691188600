"""A cluster that breaks under a run: it ends with the right image all the same, and status says what happened."""

import time
from typing import Any

import pytest

from tests.cluster.fixture import Cluster
from tests.faults.faults import kill_buildkitd, registry_refuses
from tests.support import watch
from tests.support.gate import Gate
from tests.support.tenant import AMD64, ARM64, BOTH, Build, Status, Tenant, inline, platform

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("alone")]

OUTAGE = 20
"""Seconds for which the registry is away."""


@pytest.fixture
def local(cluster: Cluster) -> Cluster:
    """The cluster, whose nodes may be stopped."""
    assert cluster.local
    return cluster


def gated(gate: Gate) -> dict[str, Any]:
    """Return a source whose RUN waits until the test has broken what it breaks."""
    return inline(f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n")


def test_a_daemon_that_is_killed_and_a_pod_that_is_deleted(local: Cluster, tenant: Tenant, gate: Gate) -> None:
    build = tenant.build(source=gated(gate))
    pods = {ARM64: building(build, ARM64)}
    tenant.kubectl("delete", "pod", pods[ARM64]["metadata"]["name"], "--wait=false")
    pods[AMD64] = building(build, AMD64)
    kill_buildkitd(local, pods[AMD64])
    gate.open()
    status = build.succeeded()
    check(tenant, status, {AMD64: "BuilderLost", ARM64: "BuilderLost"})
    told = {name: platform(status, name)["failedAttempts"][0] for name in BOTH}
    assert told[AMD64]["message"] == "The connection to buildkitd was lost: it was killed or has crashed."
    assert "was deleted before its step ended" in told[ARM64]["message"]
    assert all(told[name]["node"] == pods[name]["spec"]["nodeName"] for name in BOTH)


def test_a_registry_that_is_away_during_the_push(local: Cluster, tenant: Tenant, gate: Gate) -> None:
    build = tenant.build(source=gated(gate), platforms=[AMD64])
    building(build, AMD64)
    with registry_refuses(local, 5000):
        gate.open()
        build.until(lambda status: platform(status, AMD64)["reason"] == "Retrying", why="the push failed")
        time.sleep(OUTAGE)
    status = build.succeeded()
    reasons = {entry["reason"] for entry in platform(status, AMD64)["failedAttempts"]}
    assert reasons == {"RegistryUnreachable"}
    check(tenant, status, {AMD64: "RegistryUnreachable"})


def test_a_node_that_is_drained(local: Cluster, tenant: Tenant, gate: Gate) -> None:
    build = tenant.build(source=gated(gate), scheduling={"nativeWait": "5m"})
    building(build, ARM64)
    try:
        local.kubectl("drain", "n-arm64", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        status = build.until(lambda status: platform(status, ARM64).get("failedAttempts"), why="the pod is evicted")
        assert platform(status, ARM64)["failedAttempts"][0]["reason"] == "BuilderEvicted"
        # No native node is left; the other platform is not disturbed.
        waiting = build.until(lambda status: platform(status, ARM64)["reason"] == "WaitingForNativeNode")
        assert "no Ready, schedulable node" in platform(waiting, ARM64)["message"]
    finally:
        local.kubectl("uncordon", "n-arm64")
    gate.open()
    check(tenant, build.succeeded(), {ARM64: "BuilderEvicted"})


def test_a_node_that_is_lost(local: Cluster, tenant: Tenant, gate: Gate) -> None:
    build = tenant.build(source=gated(gate), scheduling={"nativeWait": "5m"})
    building(build, ARM64)
    local.stop_node("n-arm64")
    gate.open()
    try:
        build.until(lambda status: platform(status, AMD64)["phase"] == "Succeeded", why="the other platform is built")
        status = build.until(
            lambda status: platform(status, ARM64).get("failedAttempts"), why="the platform is given up on the node"
        )
        (lost,) = platform(status, ARM64)["failedAttempts"]
        assert (lost["reason"], lost["node"]) == ("BuilderEvicted", "n-arm64")
        assert platform(status, AMD64)["phase"] == "Succeeded"
    finally:
        local.set_nodes("amd64=1,arm64=1", {"n-amd64": {"multiarch.build/qemu-arm64": "true"}})
    check(tenant, build.succeeded(), {ARM64: "BuilderEvicted"})


def building(build: Build, name: str) -> dict[str, Any]:
    """Wait until a platform is in its RUN, and return its pod."""
    status = build.until(
        lambda status: "run" in status and platform(status, name)["phase"] == "Running",
        why=f"{name} is being built",
    )
    pod = platform(status, name)["pod"]
    in_run(build.tenant, pod)
    return next(each for each in build.pods() if each["metadata"]["name"] == pod)


def in_run(tenant: Tenant, pod: str) -> None:
    """Wait until the log of a build pod says that its RUN has begun."""
    for line in watch.following(tenant.target, "-n", tenant.namespace, pod, "-c", "step"):
        if "RUN until" in line:
            return
    raise AssertionError(f"{pod} never came to its RUN")


def check(tenant: Tenant, status: Status, first_failures: dict[str, str]) -> None:
    """Check that the image is whole, and that status says why platforms needed another try."""
    for entry in status["run"]["platforms"]:
        name, tries = entry["platform"], entry.get("failedAttempts", ())
        assert [each["reason"] for each in tries][:1] == [first_failures[name]] if name in first_failures else not tries
        assert entry["attempt"] == len(tries) + 1
    for name, reason in first_failures.items():
        assert f"{name} after {reason}" in status["run"]["message"]
    assert tenant.images.digest(f"{tenant.image()}:latest") == status["image"]["digest"]
    machines = {
        image["platform"]: tenant.images.file(f"{tenant.image()}@{image['digest']}", "/machine").strip()
        for image in status["image"]["platforms"]
    }
    expected = {AMD64: "x86_64", ARM64: "aarch64"}
    assert machines == {entry["platform"]: expected[entry["platform"]] for entry in status["run"]["platforms"]}
