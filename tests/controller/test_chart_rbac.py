"""The operator with exactly the rights that the chart gives it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiarchbuild.controller.kube import BUILDS, Kube
from multiarchbuild.controller.settings import load_policy
from multiarchbuild.plan.policy import Policy

from .conftest import ROOT, Kubectl, OperatorFactory, build, end_step, eventually, in_namespace, tool

CHART = ROOT / "charts" / "multiarchbuild"
CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def render(namespace: str, **values: Any) -> list[dict[str, Any]]:
    command = [tool("helm"), "template", "mab", str(CHART), "-n", namespace]
    for name, value in values.items():
        command += ["--set-json", f"{name}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


@pytest.fixture
def rights(kubectl: Kubectl, namespace: str, request: pytest.FixtureRequest) -> Any:
    """Apply the chart's ServiceAccount, its roles and what confines it, and return the account's name."""
    namespaces = [namespace] if request.param == "one namespace" else []
    manifests = [
        manifest
        for manifest in render(namespace, namespaces=namespaces)
        if "Role" in manifest["kind"] or "Admission" in manifest["kind"] or manifest["kind"] == "ServiceAccount"
    ]
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    yield "mab-multiarchbuild"
    for manifest in manifests:
        if manifest["kind"] in CLUSTER_WIDE:
            kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


def rules(kubectl: Kubectl, account: str, namespace: str, where: str) -> dict[str, set[str]]:
    """Return the verbs by resource that the account has, as `kubectl auth can-i --list` shows them."""
    user = f"system:serviceaccount:{namespace}:{account}"
    table = kubectl("auth", "can-i", "--list", f"--as={user}", "-n", where)
    found: dict[str, set[str]] = {}
    for line in table.splitlines()[1:]:
        resource = line.split()[0]
        if resource.startswith("["):
            continue  # a URL, open to everybody
        found.setdefault(resource, set()).update(line[line.rindex("[") + 1 : line.rindex("]")].split())
    return found


EVERYBODY = {
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
}


@pytest.mark.api
@pytest.mark.parametrize("rights", ["all namespaces"], indirect=True)
def test_the_operator_may_do_what_it_does_and_has_no_verb_on_secrets(
    kubectl: Kubectl, namespace: str, rights: str
) -> None:
    found = rules(kubectl, rights, namespace, namespace)
    assert "secrets" not in found
    assert {resource: verbs for resource, verbs in found.items() if resource not in EVERYBODY} == {
        "multiarchbuilds.multiarch.build": {"get", "list", "watch"},
        "multiarchbuilds.multiarch.build/status": {"patch"},
        **{
            f"{plural}.source.toolkit.fluxcd.io": {"get", "list", "watch"}
            for plural in ("gitrepositories", "ocirepositories", "buckets", "externalartifacts")
        },
        "pods": {"list", "watch", "create", "patch", "delete"},
        "pods/log": {"get"},
        "pods/resize": {"patch"},
        "configmaps": {"list", "watch", "create", "delete"},
        "nodes": {"list", "watch"},
        "events.events.k8s.io": {"create"},
        "leases.coordination.k8s.io": {"get", "create", "update", "list"},
    }
    elsewhere = rules(kubectl, rights, namespace, "kube-system")
    # By name: those of other installations of the operator.
    assert elsewhere["leases.coordination.k8s.io"] == {"list"}
    assert "secrets" not in elsewhere


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, set()),
        ({"cacheVolumes": {"storageClasses": ["*"]}}, set()),
        ({"tenants": [{"namespaces": ["a"]}, {"namespaces": ["*"], "cacheVolumes": {}}]}, set()),
        ({"cacheVolumes": {"maxSize": "1Gi"}}, {"list", "watch", "create", "delete"}),
        (
            {"tenants": [{"namespaces": ["*"], "cacheVolumes": {"maxSize": "1Gi"}}]},
            {"list", "watch", "create", "delete"},
        ),
    ],
)
def test_it_has_rights_for_claims_where_it_needs_them(policy: dict[str, Any], expected: set[str]) -> None:
    (role,) = (
        each for each in render("ns", policy=policy) if each["metadata"]["name"].endswith("-builds") and "rules" in each
    )
    found = {verb for each in role["rules"] if "persistentvolumeclaims" in each["resources"] for verb in each["verbs"]}
    assert found == expected
    assert Policy.model_validate(policy).knows_cache_volumes is bool(expected), "what it asks for it may have"


@pytest.mark.api
@pytest.mark.parametrize("rights", ["one namespace"], indirect=True)
def test_for_some_namespaces_it_may_nothing_in_others(kubectl: Kubectl, namespace: str, rights: str) -> None:
    elsewhere = rules(kubectl, rights, namespace, "default")
    assert {resource: verbs for resource, verbs in elsewhere.items() if resource not in EVERYBODY} == {
        "nodes": {"list", "watch"},
        "leases.coordination.k8s.io": {"list"},
    }


@pytest.mark.api
@pytest.mark.parametrize("rights", ["all namespaces", "one namespace"], indirect=True)
async def test_these_rights_are_enough(
    kube: Kube,
    kubectl: Kubectl,
    namespace: str,
    rights: str,
    kubeconfig: Path,
    tmp_path: Path,
    operator: OperatorFactory,
    request: pytest.FixtureRequest,
) -> None:
    token = kubectl("create", "token", rights, "-n", namespace).strip()
    local = in_namespace(kubeconfig, namespace, tmp_path / "service-account", token=token)
    serves = "all" if "all namespaces" in request.node.name else namespace
    running = await operator("--namespace", serves, kubeconfig=local).leading()
    kubectl("create", "-f", "-", stdin=build(namespace))

    async def is_reason(reason: str) -> bool:
        manifest = await kube.get(BUILDS, namespace, "app")
        conditions = manifest.get("status", {}).get("conditions", ())
        return any(entry["type"] == "Ready" and entry["reason"] == reason for entry in conditions)

    await eventually("it builds", lambda: is_reason("Building"))
    end_step(kubectl, namespace, "app-g1")
    await eventually("it ends", lambda: is_reason("Succeeded"))
    await running.leading()
    assert running.terminate()[0] == 0
    # Serving all namespaces, it meets what other tests have left to be deleted.
    own = [line for line in running.lines() if line.get("build", namespace).startswith(namespace)]
    assert [line for line in own if line["level"] in {"warning", "error"}] == []
    assert running.lines(event="deleted", kind="ConfigMap")


@pytest.mark.api
def test_the_operators_own_pod_is_restricted(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    (deployment,) = [manifest for manifest in render(namespace) if manifest["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    template["spec"].pop("serviceAccountName")
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "operator", "namespace": namespace}
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_policy_of_the_values_is_one_that_the_operator_reads(tmp_path: Path) -> None:
    policy = {"isolation": "Privileged", "registries": [{"host": "registry:5000", "plainHttp": True}]}
    (config_map,) = [
        manifest for manifest in render("ns", policy=policy) if manifest["metadata"]["name"].endswith("-policy")
    ]
    path = tmp_path / "policy.yaml"
    path.write_text(config_map["data"]["policy.yaml"], encoding="utf-8")
    loaded = load_policy(path)
    assert loaded.isolation == "Privileged"
    assert loaded.registries[0].plain_http
    (deployment,) = [manifest for manifest in render("ns") if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert loaded.images.step == container["image"], "steps run the operator's own image"


def test_the_schema_of_the_values_knows_every_field_of_the_policy() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]["policy"]["properties"]) == {field.alias for field in Policy.model_fields.values()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": {"isolatoin": "Rootless"}}, "additional properties 'isolatoin' not allowed"),
        ({"replicas": "two"}, "got string, want integer"),
        ({"namespaces": ["Team A"]}, "does not match pattern"),
        ({"image": {"digest": "latest"}}, "does not match pattern"),
        ({"unknown": 1}, "additional properties 'unknown' not allowed"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        render("ns", **values)


def test_the_chart_has_nothing_to_complain_about() -> None:
    done = subprocess.run([tool("helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
