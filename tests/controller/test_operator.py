"""The operator on a real API server: it brings builds forward, leaves no trace but its own, and survives."""

import asyncio
import json
import time
from typing import Any

import pytest

from multiarchbuild.api.mounts import SOURCE_ANNOTATION
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.controller.kube import BUILDS, CONFIG_MAPS, EVENTS, PODS, Kube, NotFound
from tests.support.pace import slowness

from .conftest import Kubectl, OperatorFactory, build, end_step, eventually

pytestmark = pytest.mark.api


def condition(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    entries = manifest.get("status", {}).get("conditions", ())
    return next((entry for entry in entries if entry["type"] == kind), {})


async def ready(kube: Kube, namespace: str, name: str = "app", *, reason: str) -> dict[str, Any]:
    """Wait for the reason of the Ready condition and return the build."""

    async def check() -> dict[str, Any] | None:
        manifest = await kube.get(BUILDS, namespace, name)
        return manifest if condition(manifest, "Ready").get("reason") == reason else None

    found = await eventually(f"{name} is {reason}", check)
    assert found
    return found


async def started(kube: Kube, namespace: str, pod: str) -> dict[str, Any]:
    async def check() -> dict[str, Any] | None:
        try:
            return await kube.get(PODS, namespace, pod)
        except NotFound:
            return None

    found = await eventually(f"pod {pod} exists", check)
    assert found
    return found


async def test_a_build_comes_to_its_end(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await ready(kube, namespace, reason="Building")
    assert [entry["metadata"]["name"] for entry in await kube.list(CONFIG_MAPS, namespace)].count("app-g1") == 1
    end_step(kubectl, namespace, "app-g1")
    manifest = await ready(kube, namespace, reason="Succeeded")
    assert condition(manifest, "Ready")["status"] == "True"

    async def inputs_gone() -> bool:
        names = [entry["metadata"]["name"] for entry in await kube.list(CONFIG_MAPS, namespace)]
        return "app-g1" not in names

    await eventually("what is over is deleted", inputs_gone)
    events = [entry for entry in await kube.list(EVENTS, namespace) if entry["regarding"]["name"] == "app"]
    assert [(event["reason"], event["note"]) for event in events] == [("Started", "A run has started.")]
    assert running.metric('mab_builds_total{reason="Succeeded",result="Succeeded"}') == 1
    assert running.metric("mab_builds_active") == 0
    assert running.metric('mab_reconcile_errors_total{kind="bug"}') == 0
    assert {line.get("build") for line in running.lines(event="created")} == {f"{namespace}/app"}
    assert {line.get("run") for line in running.lines(event="created")} == {"g1"}
    assert [line["platform"] for line in running.lines(event="created", kind="Pod")] == ["linux/amd64"]


async def test_nothing_is_left_on_objects_but_our_status(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await started(kube, namespace, "app-g1")
    end_step(kubectl, namespace, "app-g1")
    manifest = await ready(kube, namespace, reason="Succeeded")
    meta = manifest["metadata"]
    assert "finalizers" not in meta
    assert "annotations" not in meta
    managers = {(entry["manager"], entry["operation"], entry.get("subresource")) for entry in meta["managedFields"]}
    assert managers == {("kubectl-create", "Update", None), ("multiarchbuild", "Apply", "status")}
    pod = await kube.get(PODS, namespace, "app-g1")
    assert "finalizers" not in pod["metadata"]


async def test_nothing_new_is_nothing_written(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await ready(kube, namespace, reason="Building")
    version = (await kube.get(BUILDS, namespace, "app"))["metadata"]["resourceVersion"]
    for number in range(3):
        looks = running.metric("mab_reconcile_duration_seconds_count")
        kubectl.annotate("pod", namespace, "app-g1", SOURCE_ANNOTATION, str(number))

        async def looked(before: float = looks) -> bool:
            return running.metric("mab_reconcile_duration_seconds_count") > before

        await eventually("the operator looks", looked)
    assert (await kube.get(BUILDS, namespace, "app"))["metadata"]["resourceVersion"] == version


async def test_what_it_writes_itself_wakes_it_for_nothing(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await ready(kube, namespace, reason="Building")
    looks = running.metric("mab_reconcile_duration_seconds_count")
    assert looks <= 2, "one for the build and one for its pod, none for the status"
    kubectl("annotate", "mab", "app", "-n", namespace, "example.com/note=hello")
    kubectl("label", "pod", "app-g1", "-n", namespace, "example.com/note=hello")
    kubectl("create", "-f", "-", stdin=build(namespace, "next"))
    await ready(kube, namespace, "next", reason="Building")
    # Not by how much it grows: a look counts when it has ended, which may be after what it has written is seen.
    assert running.metric("mab_reconcile_duration_seconds_count") <= 4, "nor for what concerns neither"
    assert running.metric("mab_queue_depth") == 0


RANDOM_WORD = "object.metadata.uid" + "".join(f".replace('{digit}', '{chr(ord('g') + digit)}')" for digit in range(10))
"""CEL of a word that is another each time, and has no digit in it."""


@pytest.mark.parametrize("word", ["object.metadata.uid", RANDOM_WORD])
async def test_a_refusal_that_never_says_the_same_twice_costs_next_to_nothing(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory, word: str
) -> None:
    policy = refusing_pods(namespace, f"'denied by policy, request ' + {word}")
    kubectl("create", "-f", "-", stdin=json.dumps(policy))
    try:
        await refused_from_now_on(kubectl, namespace)
        running = await operator().leading()
        kubectl("create", "-f", "-", stdin=build(namespace))
        manifest = await ready(kube, namespace, reason="PodRejected")
        assert "denied by policy, request " in condition(manifest, "Ready")["message"]
        created = manifest["metadata"]["creationTimestamp"]
        first = await writes(kube, namespace, seconds=20)
        assert len(first) <= 2, f"created {created}, written {first}"
        assert running.metric("mab_reconcile_duration_seconds_count") <= 3
    finally:
        kubectl("delete", "-f", "-", stdin=json.dumps(policy))


def refusing_pods(namespace: str, words: str) -> dict[str, Any]:
    """Return a policy that refuses every pod of a namespace in words that CEL makes."""
    name = f"refuse-{namespace}"
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "failurePolicy": "Fail",
                    "matchConstraints": {
                        "resourceRules": [
                            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                        ]
                    },
                    "validations": [{"expression": "false", "messageExpression": words}],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {
                    "policyName": name,
                    "validationActions": ["Deny"],
                    "matchResources": {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
                    },
                },
            },
        ],
    }


async def refused_from_now_on(kubectl: Kubectl, namespace: str) -> None:
    """Wait until the API server knows the policy."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "toy"}], "automountServiceAccountToken": False},
    }

    async def refused() -> bool:
        try:
            kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        except AssertionError as error:
            return "denied by policy" in str(error)
        return False

    await eventually("the policy is in force", refused)


async def writes(kube: Kube, namespace: str, *, seconds: float) -> list[str]:
    """Return the versions that a build has had within so many seconds."""
    versions = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        version = (await kube.get(BUILDS, namespace, "app"))["metadata"]["resourceVersion"]
        if version not in versions:
            versions.append(version)
        await asyncio.sleep(0.02)
    return versions


async def test_a_change_of_the_spec_is_noticed(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await started(kube, namespace, "app-g1")
    kubectl("patch", "mab", "app", "-n", namespace, "--type=merge", "-p", '{"spec":{"output":{"tags":["next"]}}}')
    await started(kube, namespace, "app-g2")


async def test_one_poisoned_build_does_not_stop_the_others(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    running = await operator().leading()
    for number in range(12):  # more than there are workers
        kubectl("create", "-f", "-", stdin=build(namespace, f"poison-{number}"))
    kubectl("create", "-f", "-", stdin=build(namespace, "good"))
    await ready(kube, namespace, "good", reason="Building")

    async def counted() -> bool:
        return running.metric('mab_reconcile_errors_total{kind="bug"}') == 12

    await eventually("each bug is counted once", counted)
    poisoned = await kube.get(BUILDS, namespace, "poison-0")
    assert "run" not in poisoned.get("status", {}), "it is left as it is"
    (line, *_) = running.lines(build=f"{namespace}/poison-0")
    assert "RuntimeError: this build is poison" in line["exception"]
    assert "FROM scratch" not in running.log.read_text(), "no spec in a traceback"
    assert running.get("/healthz")[0] == 200


async def test_a_pod_that_pod_security_refuses_is_said_in_status(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace, annotations={"hostNetwork": "true"}))
    manifest = await ready(kube, namespace, reason="PodRejected")
    assert 'violates PodSecurity "baseline:latest": host namespaces' in condition(manifest, "Ready")["message"]
    assert condition(manifest, "Stalled")["status"] == "True"
    assert running.metric('mab_reconcile_errors_total{kind="terminal"}') >= 1
    (event,) = [entry for entry in await kube.list(EVENTS, namespace) if entry["reason"] == "PodRejected"]
    assert event["type"] == "Warning"

    kubectl("label", "namespace", namespace, "--overwrite", "pod-security.kubernetes.io/enforce=privileged")
    kubectl.annotate("mab", namespace, "app", REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    manifest = await ready(kube, namespace, reason="Building")
    assert not condition(manifest, "Stalled")


async def test_a_full_quota_is_waited_for(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    kubectl("create", "quota", "full", "--hard=pods=0", "-n", namespace)
    computed = json.dumps({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    kubectl("patch", "quota", "full", "-n", namespace, "--subresource=status", "--type=merge", "-p", computed)
    await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    manifest = await ready(kube, namespace, reason="PodRejected")
    assert "exceeded quota: full" in condition(manifest, "Ready")["message"]
    assert condition(manifest, "Reconciling")["status"] == "True"
    assert not condition(manifest, "Stalled")

    kubectl("delete", "quota", "full", "-n", namespace)
    kubectl.annotate("mab", namespace, "app", REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    await ready(kube, namespace, reason="Building")


async def test_a_new_node_wakes_the_builds_that_are_going_on(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    before = (await ready(kube, namespace, reason="Building"))["status"]["run"]["message"]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{namespace}"}}
    kubectl("create", "-f", "-", stdin=json.dumps(node))
    try:

        async def seen() -> bool:
            manifest = await kube.get(BUILDS, namespace, "app")
            return bool(manifest["status"]["run"]["message"] != before)

        await eventually("the rules see the node", seen)
    finally:
        kubectl("delete", "node", f"node-{namespace}")


async def test_a_build_that_is_deleted_is_let_go(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    await ready(kube, namespace, reason="Building")
    kubectl("delete", "mab", "app", "-n", namespace)

    async def let_go() -> bool:
        return running.metric("mab_builds_active") == 0

    await eventually("it is not active any more", let_go)
    assert running.lines(level="warning") == []
    assert running.lines(level="error") == []


async def test_killed_at_any_moment_the_next_one_goes_on(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory
) -> None:
    uids = set()

    async def next_one() -> Any:
        return await operator("--namespace", namespace, "--no-leader-elect").leading()

    running = operator("--namespace", namespace, "--no-leader-elect")
    kubectl("create", "-f", "-", stdin=build(namespace))
    for _ in range(2):
        uids.add((await started(kube, namespace, "app-g1"))["metadata"]["uid"])
        running.kill()  # right after the pod is there: status may not be written
        running = await next_one()
    await ready(kube, namespace, reason="Building")
    end_step(kubectl, namespace, "app-g1")
    running.kill()  # right after the end: nothing is written
    await next_one()
    await ready(kube, namespace, reason="Succeeded")
    assert len(uids) == 1
    assert [pod["metadata"]["name"] for pod in await kube.list(PODS, namespace)] == ["app-g1"]


async def test_it_stops_soon_and_well(namespace: str, kubectl: Kubectl, operator: OperatorFactory) -> None:
    running = await operator().leading()
    kubectl("create", "-f", "-", stdin=build(namespace))
    code, seconds = running.terminate()
    assert code == 0
    assert seconds < 2 * slowness()
    assert running.lines(level="error") == []


async def test_a_namespace_that_is_not_there_yet_is_no_reason_to_fail(
    namespace: str, operator: OperatorFactory
) -> None:
    await operator("--namespace", f"{namespace}-x", "--no-leader-elect").leading()
