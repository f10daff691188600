"""What somebody can do who has stolen the operator's token: write what builds consist of, and nothing else."""

import base64
import copy
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.controller.installations import SERVES
from multiarchbuild.controller.leader import LEASE
from multiarchbuild.plan.actions import EnsureClaim, EnsureInputs, StartBuild
from multiarchbuild.plan.policy import Policy
from multiarchbuild.pods import render as render_child
from tests.unit.plan.world import World

from .conftest import PATIENCE, Kubectl, build, eventually, in_namespace
from .test_chart_rbac import CLUSTER_WIDE, render

pytestmark = pytest.mark.api

Manifest = dict[str, Any]
ACCOUNT = "mab-multiarchbuild"


@pytest.fixture
def thief(
    kubectl: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Kubectl]:
    """Kubectl with the operator's token, confined by the chart as it is installed by default."""
    values: dict[str, Any] = getattr(request, "param", {})
    kinds = ("ServiceAccount", "Role", "Admission")
    manifests = [each for each in render(namespace, **values) if any(kind in each["kind"] for kind in kinds)]
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    token = kubectl("create", "token", ACCOUNT, "-n", namespace).strip()
    yield Kubectl(in_namespace(kubeconfig, namespace, tmp_path / "stolen", token=token))
    for manifest in manifests:
        if manifest["kind"] in CLUSTER_WIDE:
            kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


@pytest.fixture
def owner(kubectl: Kubectl, namespace: str) -> Manifest:
    """A MultiArchBuild, on which nobody acts."""
    found: Manifest = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=build(namespace)))
    return found


def children(owner: Manifest) -> tuple[Manifest, Manifest]:
    """Return a pod and a ConfigMap as the operator makes them for a build."""
    resource = MultiArchBuild.model_validate(owner)
    start = next(action for action in World(owner).decide().before if isinstance(action, StartBuild))
    config_map = render_child(EnsureInputs("inputs", "run1"), resource, Policy())
    return render_child(start, resource, Policy()), config_map


def attempt(thief: Kubectl, manifest: Manifest) -> str:
    """Try to create an object; return what the API server said against it, or nothing."""
    try:
        thief("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    except AssertionError as error:
        return str(error)
    return ""


async def confined(thief: Kubectl, owner: Manifest) -> None:
    """Wait until the API server has taken in both policies, which it does some time after they exist."""
    pod, config_map = children(owner)
    config_map["metadata"]["labels"] = {}
    pod["spec"]["hostNetwork"] = True

    async def both() -> bool:
        return NOT_OURS in attempt(thief, config_map) and "may not use the network" in attempt(thief, pod)

    await eventually("the policies count", both)


def patch(thief: Kubectl, namespace: str, pod: str, change: Manifest, subresource: str = "") -> str:
    """Patch a pod, without reading it first as kubectl does; return what the API server said against it, or nothing."""
    config = json.loads(thief.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    request = urllib.request.Request(
        f"{cluster['server']}/api/v1/namespaces/{namespace}/pods/{pod}{subresource}",
        data=json.dumps(change).encode(),
        method="PATCH",
        headers={
            "Content-Type": "application/strategic-merge-patch+json",
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
        },
    )
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=authority)):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()


def _resize(thief: Kubectl, namespace: str, pod: str, **resources: dict[str, str]) -> str:
    change = {"spec": {"containers": [{"name": "step", "resources": resources}]}}
    return patch(thief, namespace, pod, change, "/resize")


def _spec(**fields: Any) -> Callable[[Manifest], None]:
    return lambda pod: pod["spec"].update(fields)


def _volume(**source: Any) -> Callable[[Manifest], None]:
    return lambda pod: pod["spec"]["volumes"].append({"name": "stolen", **source})


def _meta(**fields: Any) -> Callable[[Manifest], None]:
    return lambda child: child["metadata"].update(fields)


def _owner(**fields: Any) -> Callable[[Manifest], None]:
    return lambda child: child["metadata"]["ownerReferences"][0].update(fields)


def _privileged(pod: Manifest) -> None:
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}


def _privileged_daemon(pod: Manifest) -> None:
    pod["spec"]["initContainers"][0]["securityContext"] = {"privileged": True}


def _host_port(pod: Manifest) -> None:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]


NOT_OURS = "only pods, ConfigMaps and claims that a MultiArchBuild controls"
TOKEN = "pods of builds may have no token for the API server"
FOREIGN: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "without labels": (_meta(labels={}), NOT_OURS),
    "without an owner": (_meta(ownerReferences=[]), NOT_OURS),
    "of another kind of owner": (_owner(kind="Job", apiVersion="batch/v1"), NOT_OURS),
    "of another owner than its label says": (_owner(uid="00000000-0000-0000-0000-000000000000"), NOT_OURS),
    "that nobody controls": (_owner(controller=False), NOT_OURS),
}
PODS: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "on the network of the node": (_spec(hostNetwork=True), "may not use the network or processes of their node"),
    "among the processes of the node": (_spec(hostPID=True), "may not use the network or processes of their node"),
    "in the IPC of the node": (_spec(hostIPC=True), "may not use the network or processes of their node"),
    "with a port of the node": (_host_port, "may not use the network or processes of their node"),
    "on a node of its choice": (_spec(nodeName="control-plane"), "may not choose their node"),
    "with a folder of the node": (_volume(hostPath={"path": "/"}), "may mount only Secrets, ConfigMaps"),
    "with a volume of others": (_volume(persistentVolumeClaim={"claimName": "db"}), "may mount only Secrets"),
    "with a token": (_spec(automountServiceAccountToken=True), TOKEN),
    "with a projected token": (
        _volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        TOKEN,
    ),
    "with a token that says for whom it is": (
        _volume(
            projected={
                "sources": [
                    {
                        "serviceAccountToken": {
                            "path": "token",
                            "audience": "https://kubernetes.default.svc.cluster.local",
                        }
                    }
                ]
            }
        ),
        TOKEN,
    ),
    "with a privileged step": (_privileged, "no container of a build may be privileged"),
    "with a privileged daemon": (_privileged_daemon, "no container of a build may be privileged"),
    "more important than the cluster": (_spec(priorityClassName="system-node-critical"), "a priority class of the clu"),
}


async def test_a_stolen_token_creates_nothing_but_what_builds_consist_of(
    thief: Kubectl, namespace: str, owner: Manifest, kubectl: Kubectl
) -> None:
    await confined(thief, owner)
    pod, config_map = children(owner)
    assert attempt(thief, pod) == ""
    assert attempt(thief, config_map) == ""
    identity = copy.deepcopy(pod)
    audience = {"serviceAccountToken": {"path": "token", "audience": "sts.amazonaws.com"}}
    _volume(projected={"sources": [audience]})(identity)
    assert attempt(thief, identity) == "", "what a webhook adds for workload identity"
    escapes = []
    for child in (pod, config_map):
        for name, (change, message) in {**FOREIGN, **(PODS if child is pod else {})}.items():
            changed = copy.deepcopy(child)
            change(changed)
            if message not in (said := attempt(thief, changed)):
                escapes.append(f"{child['kind']} {name}: {said or 'created'}")
    assert escapes == []
    # Where nobody may build, whatever the object looks like.
    system = copy.deepcopy(config_map)
    system["metadata"]["namespace"] = "kube-system"
    assert "no builds run in this namespace" in attempt(thief, system)
    # Admission can't see whether an owner exists; the garbage collector does.
    forged = copy.deepcopy(config_map)
    uid = "00000000-0000-0000-0000-000000000000"
    forged["metadata"] |= {
        "name": "forged",
        "labels": {**forged["metadata"]["labels"], "multiarch.build/build-uid": uid},
    }
    forged["metadata"]["ownerReferences"][0]["uid"] = uid
    thief("create", "-f", "-", stdin=json.dumps(forged))
    kubectl("wait", "--for=delete", "configmap/forged", "-n", namespace, f"--timeout={PATIENCE:.0f}s")
    # It is the account that is confined, and nobody else.
    assert attempt(kubectl, {**config_map, "metadata": {"name": "mine", "namespace": namespace}}) == ""


CACHED = {"cache": {"volume": {"size": "1Gi"}}}
ALLOWED = {"cacheVolumes": {"maxSize": "1Gi"}}
CLAIMS: dict[str, tuple[Callable[[Manifest], None], str]] = {
    **FOREIGN,
    "without labels": (_meta(labels={"multiarch.build/role": "cache"}), NOT_OURS),
    "of a volume that is there": (_spec(volumeName="db"), "only new, empty volumes"),
    "of a volume that fits": (_spec(selector={"matchLabels": {"app": "db"}}), "only new, empty volumes"),
    "of a copy": (_spec(dataSource={"kind": "PersistentVolumeClaim", "name": "db"}), "only new, empty volumes"),
    "that many pods have": (_spec(accessModes=["ReadWriteMany"]), "only new, empty volumes"),
}


@pytest.mark.parametrize("thief", [{"policy": ALLOWED}], indirect=True)
async def test_of_volumes_it_gets_only_new_ones_and_only_for_buildkitd(
    thief: Kubectl, namespace: str, owner: Manifest, kubectl: Kubectl
) -> None:
    await confined(thief, owner)
    owner["spec"] |= CACHED
    resource, policy = MultiArchBuild.model_validate(owner), Policy.model_validate(ALLOWED)
    before = World(owner, policy=policy).decide().before
    claim, pod = (
        render_child(next(action for action in before if isinstance(action, kind)), resource, policy)
        for kind in (EnsureClaim, StartBuild)
    )

    async def counts() -> bool:
        return "only new, empty volumes" in attempt(thief, {**claim, "spec": {**claim["spec"], "volumeName": "db"}})

    await eventually("the policy of claims counts", counts)
    assert attempt(thief, claim) == ""
    assert attempt(thief, pod) == ""
    escapes = []
    for name, (change, message) in CLAIMS.items():
        changed = copy.deepcopy(claim)
        change(changed)
        if message not in (said := attempt(thief, changed)):
            escapes.append(f"claim {name}: {said or 'created'}")
    assert escapes == []
    stolen, shared = copy.deepcopy(pod), copy.deepcopy(pod)
    volume = next(each for each in stolen["spec"]["volumes"] if each["name"] == "buildkitd-state")
    volume["persistentVolumeClaim"]["claimName"] = "db"
    assert "may mount only Secrets" in attempt(thief, stolen)
    shared["spec"]["containers"][0]["volumeMounts"].append({"name": "buildkitd-state", "mountPath": "/state"})
    assert "only buildkitd may mount what it keeps" in attempt(thief, shared)
    plain = copy.deepcopy(pod)
    _volume(persistentVolumeClaim={"claimName": claim["metadata"]["name"]})(plain)
    assert "may mount only Secrets" in attempt(thief, plain)
    database = {**claim, "metadata": {"name": "db", "namespace": namespace}}
    kubectl("create", "-f", "-", stdin=json.dumps(database))
    with pytest.raises(AssertionError, match=NOT_OURS):
        thief("delete", "persistentvolumeclaim", "db", "-n", namespace)
    thief("create", "-f", "-", stdin=json.dumps(claim))
    thief("delete", "persistentvolumeclaim", claim["metadata"]["name"], "-n", namespace, "--wait=false")


async def test_a_stolen_token_changes_and_deletes_nothing_of_others(
    thief: Kubectl, namespace: str, owner: Manifest, kubectl: Kubectl
) -> None:
    await confined(thief, owner)
    pod, config_map = children(owner)
    own = pod["metadata"]["name"]
    thief("create", "-f", "-", stdin=json.dumps(pod))
    thief("create", "-f", "-", stdin=json.dumps(config_map))
    bare = {"metadata": {"name": "db", "namespace": namespace}, "apiVersion": "v1"}
    kubectl("create", "-f", "-", stdin=json.dumps({**bare, "kind": "ConfigMap"}))
    # It breaks no rule but that it is not ours: of several that are broken, any may be told.
    database = {"name": "step", "image": "db", "resources": {"requests": {"cpu": "1m"}}}
    foreign = {"containers": [database], "automountServiceAccountToken": False}
    kept = {"name": "db", "namespace": namespace, "annotations": {"multiarch.build/template": "1"}}
    kubectl("create", "-f", "-", stdin=json.dumps({**bare, "metadata": kept, "kind": "Pod", "spec": foreign}))

    def refused(message: str, *command: str) -> None:
        with pytest.raises(AssertionError, match=message):
            thief(*command, "-n", namespace)

    def annotated(key: str) -> Manifest:
        return {"metadata": {"annotations": {key: "y"}}}

    refused(NOT_OURS, "delete", "pod", "db")
    refused(NOT_OURS, "delete", "configmap", "db")
    label = {"metadata": {"labels": {"example.com/x": "y"}}}
    containers = [{**container, "image": "evil"} for container in pod["spec"]["containers"]]
    assert NOT_OURS in patch(thief, namespace, "db", annotated("multiarch.build/source"))
    assert "may change nothing but the annotations" in patch(thief, namespace, own, label)
    assert "may change nothing but the annotations" in patch(thief, namespace, own, annotated("example.com/x"))
    assert "may change nothing but the annotations" in patch(thief, namespace, own, annotated("multiarch.build/mode"))
    assert "may not change the spec" in patch(thief, namespace, own, {"spec": {"containers": containers}})
    for key in ("source", "built", "built-at"):
        assert patch(thief, namespace, own, annotated(f"multiarch.build/{key}")) == ""
    run = {"metadata": {"labels": {"multiarch.build/run": "another"}}}
    handed = [run, *(annotated(f"multiarch.build/{key}") for key in ("request", "idle"))]
    for change in handed:
        assert "may change nothing but the annotations" in patch(thief, namespace, own, change), "it ends with its run"
    stays = {**pod["metadata"], "name": "stays", "annotations": {"multiarch.build/template": "1"}}
    thief("create", "-f", "-", stdin=json.dumps({**pod, "metadata": stays}))
    for change in handed:
        assert patch(thief, namespace, "stays", change) == ""
    for change in (label, annotated("multiarch.build/template"), annotated("multiarch.build/mode")):
        assert "may change nothing but the annotations" in patch(thief, namespace, "stays", change)
    only = "only what the builders request that it keeps"
    assert _resize(thief, namespace, "stays", requests={"cpu": "5m"}) == ""
    assert only in _resize(thief, namespace, "stays", limits={"cpu": "2"})
    assert only in _resize(thief, namespace, own, requests={"cpu": "5m"}), "it ends with its run"
    assert NOT_OURS in _resize(thief, namespace, "db", requests={"cpu": "5m"})
    thief("delete", "pod", "stays", "-n", namespace, "--wait=false")
    refused("forbidden", "get", "secrets")
    refused("forbidden", "exec", own, "--", "true")
    thief("delete", "pod", own, "-n", namespace, "--wait=false")
    thief("delete", "configmap", config_map["metadata"]["name"], "-n", namespace)


@pytest.mark.parametrize("thief", [{"confinement.namespaceLabels": {"example.com/builds": "true"}}], indirect=True)
async def test_builds_run_only_where_a_namespace_says_so(
    thief: Kubectl, namespace: str, owner: Manifest, kubectl: Kubectl
) -> None:
    pod, _ = children(owner)

    async def refused() -> bool:
        return "only in namespaces with the label example.com/builds=true" in attempt(thief, pod)

    await eventually("the policy counts", refused)
    kubectl("label", "namespace", namespace, "example.com/builds=true")

    async def allowed() -> bool:
        return attempt(thief, pod) == ""

    await eventually("the label counts", allowed)


@pytest.mark.parametrize(("thief", "count"), [({}, 3), ({"policy": ALLOWED}, 4)], indirect=["thief"])
async def test_the_api_server_finds_no_fault_with_the_expressions(
    thief: Kubectl, kubectl: Kubectl, namespace: str, count: int
) -> None:
    del thief  # who is confined

    async def checked() -> list[Manifest]:
        items = json.loads(kubectl("get", "validatingadmissionpolicies", "-o", "json"))["items"]
        own = [each for each in items if each["metadata"]["name"].startswith(namespace)]
        return own if all("typeChecking" in each.get("status", {}) for each in own) else []

    policies = await eventually("the types are checked", checked)
    assert len(policies) == count
    assert [each["status"]["typeChecking"].get("expressionWarnings", []) for each in policies] == [[]] * count


async def test_only_who_may_write_status_may_claim_to_serve_a_namespace(
    kubectl: Kubectl, thief: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    kubectl("create", "serviceaccount", "tenant", "-n", namespace)
    kubectl(
        "create", "rolebinding", "tenant", "--clusterrole=edit", f"--serviceaccount={namespace}:tenant", "-n", namespace
    )
    token = kubectl("create", "token", "tenant", "-n", namespace).strip()
    tenant = Kubectl(in_namespace(kubeconfig, namespace, tmp_path / "tenant", token=token))

    def lease(serves: str) -> Manifest:
        meta = {"name": LEASE, "namespace": namespace, "annotations": {SERVES: serves}}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}

    claim = "only who may write the status of MultiArchBuilds may claim"

    async def counts() -> bool:
        return claim in attempt(tenant, lease("*"))

    await eventually("the policy counts", counts)
    assert claim in attempt(tenant, lease(namespace))
    assert claim in attempt(tenant, lease(f"{namespace},default"))
    assert attempt(thief, lease("*")) == ""
    assert attempt(thief, lease(f"{namespace},default")) == ""
    other = lease("*")
    other["metadata"]["name"] = "of-the-tenant"
    assert attempt(tenant, other) == "", "its own Leases are its own"
