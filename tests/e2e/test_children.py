"""Children of a run that the cluster does not take, takes in another way, or that others were there before."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.identity import alternatives, builder_name, fingerprint, inputs_name, run_id
from multiarchbuild.plan.retention import LINGER
from tests.support import poll, watch
from tests.support.gate import Gate
from tests.support.git import GitServer
from tests.support.tenant import AMD64, ARM64, TINY, Build, Tenant, condition, inline, platform
from tests.support.watch import recording

pytestmark = pytest.mark.e2e

FOREIGN = {"example.com/owner": "somebody-else"}


def names_of(build: Build) -> tuple[str, str]:
    """Return the names that the first run of a suspended build wants for its ConfigMap and its builder for amd64."""
    parsed = MultiArchBuild.model_validate(build.get())
    run = run_id(parsed, fingerprint(parsed.spec), None)
    return inputs_name(parsed, run), builder_name(parsed, run, "amd64", "", 1)


def foreign_pod(tenant: Tenant, name: str) -> dict[str, Any]:
    """Return a pod that waits for a node for ever, and could be taken for a builder that has not started."""
    image = f"{tenant.target.facts.registry}/library/busybox:1.36"
    spec = {"containers": [{"name": "step", "image": image}], "nodeSelector": {"example.com/pool": "none"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": FOREIGN}, "spec": spec}


def foreign_config_map(name: str) -> dict[str, Any]:
    data = {"inputs.json": '{"image": "registry.example.com/stolen"}'}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": FOREIGN}, "data": data}


def foreign(tenant: Tenant) -> list[tuple[str, str, str]]:
    """Return what others have in the namespace, as (kind, name, uid)."""
    found = tenant.list("pods,configmaps", "example.com/owner=somebody-else")
    return sorted((each["kind"], each["metadata"]["name"], each["metadata"]["uid"]) for each in found)


def test_objects_of_others_that_have_the_names_are_not_used(tenant: Tenant) -> None:
    build = tenant.build(platforms=[AMD64], suspend=True)
    inputs, builder = names_of(build)
    tenant.apply(foreign_config_map(inputs))
    tenant.apply(foreign_pod(tenant, builder))
    there = foreign(tenant)
    build.patch(suspend=False)
    status = build.succeeded()
    assert inputs == f"app-{status['run']['id']}-inputs", "they had the names that the run wanted"
    assert platform(status, AMD64)["pod"] in alternatives(builder)[1:]
    assert foreign(tenant) == there
    for pod in build.pods():
        mounted = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume]
        assert set(mounted) <= set(alternatives(inputs)[1:])
    told = {event["note"] for event in build.events() if event["reason"] == "NameTaken"}
    left_alone = "exists but does not belong to this build: it is neither changed nor used"
    assert told == {f"an object {name} {left_alone}" for name in (inputs, builder)}


def test_where_others_have_all_names_somebody_is_told_what_to_do(tenant: Tenant) -> None:
    build = tenant.build(platforms=[AMD64], suspend=True)
    names = alternatives(names_of(build)[1])
    for name in names:
        tenant.apply(foreign_pod(tenant, name))
    there = foreign(tenant)
    build.patch(suspend=False)
    status = build.until(lambda status: condition(status, "Stalled"), why="it says that it can't go on")
    stalled = condition(status, "Stalled")
    assert stalled["reason"] == "PodRejected"
    assert f"Objects that this build does not control have the names {', '.join(names)}" in stalled["message"]
    assert "delete or rename them" in stalled["message"]
    assert foreign(tenant) == there
    tenant.kubectl("delete", "pod", names[0], "--force")
    status = build.succeeded()
    assert platform(status, AMD64)["pod"] == names[0], "it goes on once somebody has done it"


def test_a_quota_that_refuses_one_builder_keeps_no_other(tenant: Tenant, gate: Gate) -> None:
    quota(tenant, pods=1)
    slow = inline(f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n")
    build = tenant.build(source=slow)
    status = build.until(
        lambda status: (
            "run" in status and {entry["phase"] for entry in status["run"]["platforms"]} == {"Running", "Pending"}
        ),
        why="one platform is built and the other is not",
    )
    assert platform(status, AMD64)["phase"] == "Running"
    refused = platform(status, ARM64)
    assert refused["reason"] == "PodRejected"
    assert "exceeded quota: tight" in refused["message"]
    assert "The operator tries again until the quota has room." in refused["message"]
    assert not condition(status, "Stalled")
    gate.open()
    # Each pod that ends makes room for the next one.
    status = build.succeeded()
    assert [entry["attempt"] for entry in status["run"]["platforms"]] == [1, 1]


def test_a_quota_that_the_run_itself_fills_stops_nothing(tenant: Tenant, git_server: GitServer) -> None:
    tenant.kubectl("wait", "configmap/kube-root-ca.crt", "--for=create", "--timeout=60s")
    quota(tenant, configmaps=2)
    repository = git_server.repository(f"{tenant.namespace}.git")
    repository.commit({"Dockerfile": TINY})
    # Its builders need the commit, which is known only once its ConfigMap exists and fills the quota.
    tenant.build(source={"git": {"url": repository.url, "ref": "main"}}).succeeded()


def quota(tenant: Tenant, **hard: int) -> None:
    """Limit how many objects there may be, and return once the limit is in force."""
    limits = [f"{kind}={number}" for kind, number in hard.items()]
    tenant.kubectl("create", "quota", "tight", f"--hard={','.join(limits)}")
    for kind, number in hard.items():
        tenant.kubectl("wait", "quota/tight", f"--for=jsonpath={{.status.hard.{kind}}}={number}", "--timeout=120s")


PROXY = "proxy"


@pytest.fixture
def sidecars(tenant: Tenant) -> Iterator[None]:
    """Pods of the namespace get a container that never ends, as service meshes add one."""
    if "mutatingadmissionpolicies" not in tenant.kubectl("api-resources", "-o", "name"):
        pytest.skip("the cluster has no MutatingAdmissionPolicy (Kubernetes 1.36)")
    name, image = f"sidecar-{tenant.namespace}", f"{tenant.target.facts.registry}/library/busybox:1.36"
    script = "trap 'exit 0' TERM; sleep 86400 & wait"
    container = f'Object.spec.containers{{name: "{PROXY}", image: "{image}", command: ["sh", "-c", "{script}"]}}'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    api_version = "admissionregistration.k8s.io/v1"
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {
                # Not an apply configuration, which may not hold a list such as `command`.
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": f'[JSONPatch{{op: "add", path: "/spec/containers/-", value: {container}}}]'
                },
            }
        ],
    }
    binding = {
        "policyName": name,
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}},
    }
    for kind, spec in (("MutatingAdmissionPolicy", policy), ("MutatingAdmissionPolicyBinding", binding)):
        tenant.apply({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
    try:
        poll.until("pods get a sidecar", lambda: gets_a_sidecar(tenant))
        yield
    finally:
        kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding"
        tenant.kubectl("delete", kinds, "--field-selector", f"metadata.name={name}")


def gets_a_sidecar(tenant: Tenant) -> bool:
    """Return whether the API server acts by the policy yet."""
    probe = json.dumps(foreign_pod(tenant, "probe"))
    made = json.loads(tenant.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=probe))
    return PROXY in [container["name"] for container in made["spec"]["containers"]]


@pytest.mark.usefixtures("sidecars")
def test_a_container_of_others_that_stays_alive_is_ended_with_its_pod(tenant: Tenant) -> None:
    with recording(tenant.target, "pods", "-n", tenant.namespace) as pods:
        good = tenant.build("good", platforms=[AMD64])
        bad = tenant.build("bad", platforms=[AMD64], source=inline("FROM busybox:1.36\nRUN echo last words; exit 3\n"))
        status = good.succeeded()
        failed = platform(bad.failed("BuildFailed"), AMD64)
        for build in (good, bad):
            selector = f"multiarch.build/build-uid={build.get()['metadata']['uid']}"
            watch.gone(tenant.target, "pods", "-n", tenant.namespace, "-l", selector)
    assert tenant.images.digest(f"{tenant.image()}:latest") == status["image"]["digest"]
    assert "last words" in failed["logTail"].splitlines(), "its log is kept though its pod is gone"
    assert len(pods.seen) == 3, "two builders and one that publishes"
    for pod in pods.seen.values():
        assert PROXY in [container["name"] for container in pod["spec"]["containers"]]
        (ended,) = [
            entry["state"]["terminated"]["finishedAt"]
            for entry in pod["status"]["containerStatuses"]
            if entry["name"] == "step"
        ]
        went = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
        assert went - datetime.fromisoformat(ended) >= LINGER, "its own end is waited for"
