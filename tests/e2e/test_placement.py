"""Native nodes, QEMU and cross-compilation on real nodes, which come and go."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.cluster.fixture import Cluster
from tests.support import watch
from tests.support.tenant import AMD64, ARM64, BOTH, Build, Status, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e

QEMU = {"n-amd64": {"multiarch.build/qemu-arm64": "true"}}
COMPILED = """\
FROM --platform=$BUILDPLATFORM busybox:1.36 AS compile
RUN echo comp''iled
ARG TARGETOS TARGETARCH
RUN echo link''ed for $TARGETOS/$TARGETARCH | tee /program
FROM scratch
COPY --from=compile /program /program
"""
"""A compiler that runs on the builder's own platform: its first step is the same for every target."""


@pytest.fixture
def without_arm64(cluster: Cluster, operator: str) -> Iterator[Cluster]:
    """The cluster without a node for arm64, but with QEMU for it."""
    del operator  # it is installed while all nodes are there
    yield cluster.set_nodes("amd64=1,arm64=0", QEMU)
    cluster.set_nodes("amd64=1,arm64=1", QEMU)


@pytest.mark.xdist_group("alone")
def test_without_a_native_node(without_arm64: Cluster, tenant: Tenant) -> None:
    before = emulated_builds(tenant)
    auto = arm64(tenant, "auto", strategy="Auto", nativeWait="6s")
    patient = arm64(tenant, "patient", strategy="Auto", nativeWait="10m")
    native = arm64(tenant, "native", strategy="Native")

    # A real pod waits, which an autoscaler sees, and status says what for.
    waiting = patient.until(lambda status: reason(status) == "WaitingForNativeNode")
    assert "no Ready, schedulable node with kubernetes.io/arch=arm64" in entry(waiting)["message"]
    (pod,) = watch.wait_for(
        tenant.target,
        *("pods", "-n", tenant.namespace, "-l", selector(patient)),
        until=lambda pods: [pod for pod in pods.values() if unschedulable(pod)],
    )
    assert pod["spec"]["nodeSelector"]["kubernetes.io/arch"] == "arm64"

    # Then QEMU, and nothing of it is silent.
    status = auto.succeeded()
    begun, built = (datetime.fromisoformat(each["startedAt"]) for each in (status["run"], entry(status)))
    assert (built - begun).total_seconds() >= 6, "not before its time"
    assert (entry(status)["mode"], entry(status)["node"]) == ("Emulated", "n-amd64")
    events = auto.events(Emulated=1)
    assert [event["type"] for event in events if event["reason"] == "Emulated"] == ["Warning"]
    assert emulated_builds(tenant) == before + 1

    # Strategy Native never falls back, and a node that joins is used by whoever waits.
    assert reason(native.until(lambda status: reason(status) == "NoBuilder"))
    assert reason(patient.status) == "WaitingForNativeNode"
    without_arm64.set_nodes("amd64=1,arm64=1", QEMU)
    for build in (native, patient):
        assert (entry(build.succeeded())["mode"], entry(build.status)["attempt"]) == ("Native", 1)
        assert entry(build.status)["node"] == "n-arm64"

    # Strategy Emulated never is native.
    emulated = entry(arm64(tenant, "emulated", strategy="Emulated").succeeded())
    assert (emulated["mode"], emulated["node"]) == ("Emulated", "n-amd64")


def test_one_builder_makes_every_platform_and_common_steps_run_once(tenant: Tenant) -> None:
    platforms = [*BOTH, "windows/amd64"]
    build = tenant.build(platforms=platforms, source=inline(COMPILED), scheduling={"strategy": "Cross"})
    status = build.succeeded()
    entries = status["run"]["platforms"]
    assert {entry["mode"] for entry in entries} == {"Cross"}
    (name,) = {entry["pod"] for entry in entries}
    log = tenant.kubectl("logs", name, "-c", "step")
    assert len(re.findall(r"^#\d+ [\d.]+ compiled$", log, re.MULTILINE)) == 1
    assert sorted(re.findall(r"^#\d+ [\d.]+ linked for (.*)$", log, re.MULTILINE)) == sorted(platforms)
    index = tenant.images.manifest(f"{tenant.image()}:latest")
    described = [entry["platform"] for entry in index["manifests"][:3]]
    assert [f"{each['os']}/{each['architecture']}" for each in described] == platforms
    for descriptor, wanted in zip(index["manifests"], platforms, strict=False):
        ref = f"{tenant.image()}@{descriptor['digest']}"
        assert tenant.images.file(ref, "/program") == f"linked for {wanted}\n"


def test_one_platform_may_be_placed_otherwise(tenant: Tenant) -> None:
    override = {
        "platform": AMD64,
        "nodeSelector": {"kubernetes.io/hostname": "n-amd64"},
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "3Gi"}},
    }
    hopeless = {"platform": ARM64, "nodeSelector": {"pool": "none"}, "strategy": "Native"}
    build = tenant.build(scheduling={"overrides": [override, hopeless]})
    status = build.until(lambda status: platform(status, AMD64)["phase"] == "Succeeded", why="amd64 is built")
    assert platform(status, AMD64)["node"] == "n-amd64"
    waiting = platform(status, ARM64)
    assert waiting["reason"] == "NoBuilder"
    assert "fits nodeSelector and affinity: add one, or set scheduling.strategy to Auto" in waiting["message"]
    resources = {
        container["name"]: container["resources"]
        for pod in build.pods()
        if pod["metadata"]["name"] == platform(status, AMD64)["pod"]
        for container in pod["spec"]["initContainers"]
    }
    assert resources == {"buildkitd": {"requests": {"cpu": "10m", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}}


def test_a_node_selector_for_one_architecture_means_qemu_for_the_other(tenant: Tenant) -> None:
    selector = {"kubernetes.io/arch": "amd64"}
    status = arm64(tenant, "auto", nodeSelector=selector).succeeded()
    assert (entry(status)["mode"], entry(status)["node"]) == ("Emulated", "n-amd64")

    # Where QEMU is excluded too nothing is started, and who wrote it is told at once.
    native = arm64(tenant, "native", strategy="Native", nodeSelector=selector)
    status = native.until(lambda status: condition(status, "Stalled"))
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "scheduling.nodeSelector excludes every node where linux/arm64 is native" in ready["message"]
    assert native.pods() == []
    native.patch(scheduling={"overrides": [{"platform": ARM64, "nodeSelector": {"kubernetes.io/arch": "arm64"}}]})
    assert entry(native.succeeded())["mode"] == "Native"


def test_a_pod_that_waits_follows_the_nodes_and_not_for_ever(cluster: Cluster, tenant: Tenant) -> None:
    label = "multiarch.build/qemu-s390x"
    scheduling = {
        "strategy": "Emulated",
        "resources": {"requests": {"cpu": "1000"}},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
    }
    cluster.kubectl("label", "node", "n-amd64", f"{label}=true")
    try:
        build = tenant.build(platforms=["linux/s390x"], scheduling=scheduling)
        status = build.until(lambda status: reason(status, "linux/s390x") == "Unschedulable")
        (pod,) = build.pods()
        assert pod["spec"]["nodeSelector"][label] == "true"
    finally:
        cluster.kubectl("label", "node", "n-amd64", f"{label}-")
    # Without the label any node will do, for BuildKit brings QEMU along: a pod that asks for less takes its place.
    first = platform(status, "linux/s390x")["pod"]
    status = build.until(lambda status: platform(status, "linux/s390x").get("pod") != first)
    watch.wait_for(
        tenant.target,
        *("pods", "-n", tenant.namespace, "-l", selector(build)),
        until=lambda pods: (
            [pod["metadata"]["name"] for pod in pods.values()] == [platform(status, "linux/s390x")["pod"]]
        ),
    )
    (pod,) = build.pods()
    assert label not in pod["spec"]["nodeSelector"]
    assert platform(status, "linux/s390x")["attempt"] == 1

    # Who has set a limit to waiting is told when it is reached, and nothing stays behind.
    build.patch(retries=1, scheduling={"pendingTimeout": "3s"})
    status = build.failed("SchedulingTimedOut")
    failed = platform(status, "linux/s390x")
    assert (failed["attempt"], [each["reason"] for each in failed["failedAttempts"]]) == (2, ["SchedulingTimedOut"])
    assert "got no node within 3s (scheduling.pendingTimeout)" in failed["message"]
    assert "Insufficient cpu" in failed["message"]
    watch.gone(tenant.target, "pods", "-n", tenant.namespace, "-l", selector(build))
    emulated = {event["note"] for event in build.events(Emulated=1) if event["reason"] == "Emulated"}
    assert emulated == {"linux/s390x is built under QEMU: its strategy is Emulated"}


def arm64(tenant: Tenant, name: str, **scheduling: Any) -> Build:
    """Make a build for arm64."""
    return tenant.build(name, platforms=[ARM64], output={"image": tenant.image(name)}, scheduling=scheduling)


def entry(status: Status) -> dict[str, Any]:
    return platform(status, ARM64)


def reason(status: Status, name: str = ARM64) -> str:
    return str(platform(status, name).get("reason", "")) if status.get("run", {}).get("platforms") else ""


def selector(build: Build) -> str:
    return f"multiarch.build/build-uid={build.get()['metadata']['uid']},multiarch.build/role=build"


def unschedulable(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "PodScheduled" and each.get("reason") == "Unschedulable" for each in conditions)


def emulated_builds(tenant: Tenant) -> float:
    """Return how often the operator says that it has emulated arm64."""
    namespace = "multiarchbuild-system"
    pods = json.loads(tenant.target.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
    (name,) = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    text = tenant.target.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics")
    series = f'mab_platform_builds_total{{mode="Emulated",platform="{ARM64}",result="Succeeded"}} '
    return next((float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(series)), 0.0)
