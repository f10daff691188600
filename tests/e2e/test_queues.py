"""Builders that somebody else's queue holds back with scheduling gates, as Kueue does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cluster.fixture import Cluster
from tests.support import poll, watch
from tests.support.queued import entry, is_published, is_queued
from tests.support.tenant import AMD64, Status, Tenant, platform

pytestmark = pytest.mark.e2e

GATE = "example.com/quota"
PENDING_TIMEOUT = 20
"""Seconds that a pod may wait for a node: more than a look at it takes on a slow machine."""
UNDISTURBED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


@contextmanager
def gated(tenant: Tenant) -> Iterator[None]:
    """Have the API server put a gate on each builder of the namespace that is created meanwhile, as a queue does."""
    name = f"gates-{tenant.namespace}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    constraints = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}},
        "objectSelector": {"matchLabels": {"multiarch.build/role": "build"}},
        "resourceRules": [rule],
    }
    gates = f'Object{{spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: "{GATE}"}}]}}}}'
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": gates}}
    spec = {
        "matchConstraints": constraints,
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
    }
    policy = {"kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec}
    binding = {"kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": {"policyName": name}}
    items = [{"apiVersion": "admissionregistration.k8s.io/v1", **each} for each in (policy, binding)]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    tenant.target.kubectl("apply", "-f", "-", stdin=objects)
    try:
        poll.until(
            "builders get the gate", lambda: gates_of(tried(tenant, {"multiarch.build/role": "build"})) == [GATE]
        )
        yield
    finally:
        tenant.target.kubectl("delete", "-f", "-", stdin=objects)


def tried(tenant: Tenant, labels: dict[str, str]) -> dict[str, Any]:
    """Return a pod with these labels as the API server would create it."""
    container = {"name": "c", "image": "busybox:1.36"}
    metadata = {"name": "tried", "namespace": tenant.namespace, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    said = tenant.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
    return dict(json.loads(said))


def gates_of(pod: dict[str, Any]) -> list[str]:
    return [gate["name"] for gate in pod["spec"].get("schedulingGates", ())]


def pod_of(tenant: Tenant, status: Status) -> dict[str, Any]:
    return dict(json.loads(tenant.kubectl("get", "pod", platform(status, AMD64)["pod"], "-o", "json")))


def let_go(tenant: Tenant, pod: str) -> None:
    patch = [{"op": "remove", "path": "/spec/schedulingGates"}]
    tenant.kubectl("patch", "pod", pod, "--type=json", "-p", json.dumps(patch))


def test_no_time_counts_in_a_queue_and_all_of_it_after_it(cluster: Cluster, tenant: Tenant) -> None:
    label = f"example.com/{tenant.namespace}"
    scheduling = {
        "strategy": "Native",
        "pendingTimeout": f"{PENDING_TIMEOUT}s",
        "nodeSelector": {label: "true"},
    }
    with gated(tenant):
        build = tenant.build(platforms=[AMD64], scheduling=scheduling)
        status = is_queued(tenant, build, GATE)
    pod = pod_of(tenant, status)
    assert gates_of(pod) == [GATE]
    assert UNDISTURBED.items() <= pod["metadata"]["annotations"].items()
    # The resolve and publish pods were not meant by whoever gates builders.
    assert [
        gates_of(each) for each in build.pods() if each["metadata"]["labels"]["multiarch.build/role"] != "build"
    ] == []
    begin = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    late = begin + timedelta(seconds=PENDING_TIMEOUT + 1)
    poll.until("the pod has existed for longer than pendingTimeout", lambda: datetime.now(UTC) > late)
    assert entry(build.status)["reason"] == "Queued"

    let_go(tenant, pod["metadata"]["name"])
    # Now the scheduler and an autoscaler see it, and no node fits yet.
    status = build.until(lambda status: "dequeuedAt" in entry(status))
    waiting = entry(status)
    assert (waiting["attempt"], waiting["reason"], waiting["pod"]) == (1, "NoBuilder", pod["metadata"]["name"])
    cluster.kubectl("label", "node", "n-amd64", f"{label}=true")
    try:
        build.until(lambda status: entry(status).get("phase") in {"Running", "Succeeded"})
        assert UNDISTURBED.items() <= pod_of(tenant, status)["metadata"]["annotations"].items()
        done = build.succeeded()
    finally:
        cluster.kubectl("label", "node", "n-amd64", f"{label}-")
    assert (entry(done)["attempt"], entry(done)["pod"]) == (1, pod["metadata"]["name"])
    is_published(tenant, done)


def test_a_pod_that_is_deleted_in_a_queue_is_followed_by_another(tenant: Tenant) -> None:
    with gated(tenant):
        build = tenant.build(platforms=[AMD64])
        first = entry(is_queued(tenant, build, GATE))
        tenant.kubectl("delete", "pod", first["pod"])
        build.until(lambda status: entry(status).get("attempt") == 2)
        status = is_queued(tenant, build, GATE)
    second = entry(status)
    assert second["pod"] != first["pod"]
    assert [each["reason"] for each in second["failedAttempts"]] == ["BuilderLost"]
    let_go(tenant, second["pod"])
    done = build.succeeded()
    assert entry(done)["attempt"] == 2
    is_published(tenant, done)


def test_a_run_that_is_cancelled_in_a_queue_leaves_no_pod(tenant: Tenant) -> None:
    with gated(tenant):
        build = tenant.build(platforms=[AMD64])
        status = is_queued(tenant, build, GATE)
        build.annotate(cancel=status["run"]["id"])
        assert build.ended()["run"]["reason"] == "Cancelled"
        watch.gone(tenant.target, "pods", "-n", tenant.namespace, "-l", "multiarch.build/role=build")
