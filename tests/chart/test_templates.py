"""What Helm makes of the values: refused where they are wrong, accepted by the API server where they are right."""

import json
from typing import Any

import pytest
import yaml

from hack.install import CHART
from hack.target import CommandError, Target
from multiarchbuild import __version__
from multiarchbuild.api.nodes import APP_ARMOR_LABEL, APP_ARMOR_PROFILE, PROFILE_FILE
from tests.support.chart import EVERYTHING, one, render

pytestmark = pytest.mark.api

CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
NOTHING: dict[str, Any] = {
    "crds": {"enabled": False},
    "rbac": {"create": False},
    "serviceAccount": {"create": False, "name": "existing"},
    "metrics": {"service": False},
}


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, {**EVERYTHING, "namespaces": ["{namespace}"]}, NOTHING, {"crds": {"keep": False}}],
    ids=["defaults", "everything", "everything for one namespace", "nothing", "crd goes"],
)
def test_the_api_server_accepts_every_manifest(
    target: Target, prometheus: None, namespace: str, values: dict[str, Any]
) -> None:
    del prometheus
    manifests = render(target, namespace, **json.loads(json.dumps(values).replace("{namespace}", namespace)))
    for manifest in manifests:
        assert manifest["metadata"].get("namespace") == (None if manifest["kind"] in CLUSTER_WIDE else namespace)
        if manifest["kind"] not in {"Pod", "CustomResourceDefinition"}:
            assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "mab", manifest["kind"]
        if manifest["kind"] == "Pod":  # the API server looks for its ServiceAccount
            target.kubectl("create", "serviceaccount", manifest["spec"]["serviceAccountName"], "-n", namespace)
    # Strict: a field that the API server does not know is a mistake in a template.
    command = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    out = target.kubectl(*command, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    assert out.count("(server dry run)") == len(manifests)


def test_with_everything_on_every_value_is_where_it_belongs(target: Target) -> None:
    manifests = render(target, "ns", **EVERYTHING)
    deployment = one(manifests, "Deployment")
    template = deployment["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["metadata"]["annotations"] == {"example.com/owner": "platform"}
    assert container["image"] == f"ghcr.io/multiarchbuild/multiarchbuild@sha256:{'0' * 64}"
    assert container["args"][-1] == "--no-leader-elect"
    pod_name, *extra = container["env"]
    assert pod_name == {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert extra == EVERYTHING["extraEnv"]
    assert container["volumeMounts"][-1] == {"name": "extra", "mountPath": "/extra"}
    assert pod["volumes"][-1] == {"name": "extra", "emptyDir": {}}
    assert pod["serviceAccountName"] == "robot"
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
    assert {"team": "platform", "example.com/pod": "label"}.items() <= template["metadata"]["labels"].items()
    for manifest in manifests:
        if manifest["kind"] not in {"CustomResourceDefinition", "Pod"}:
            assert manifest["metadata"]["labels"]["team"] == "platform", manifest["kind"]
    assert one(manifests, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    dashboard = one(manifests, "ConfigMap", "-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["multiarchbuild.json"])["uid"] == "multiarchbuild"


def test_the_alerts_watch_their_own_release_and_some_can_be_left_out(target: Target) -> None:
    known = yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))
    rules = {"enabled": True, "alertLabels": {"severity": "page"}, "disabled": ["MultiArchBuildQueueSlow"]}
    manifests = render(target, "builds", metrics={"rules": rules})
    (group,) = one(manifests, "PrometheusRule")["spec"]["groups"]
    assert len(group["rules"]) == len(known) - 1
    for rule in group["rules"]:
        assert rule["expr"].count('namespace="builds",job="mab-multiarchbuild-metrics"') == (
            next(alert["expr"] for alert in known if alert["alert"] == rule["alert"]).count("job=")
        )
        assert rule["labels"] == {"severity": "page"}
    service = one(manifests, "Service", "-metrics")
    assert service["metadata"]["name"] == "mab-multiarchbuild-metrics", "the job that Prometheus makes of it"


def test_for_some_namespaces_there_is_a_binding_in_each_and_none_for_all(target: Target) -> None:
    manifests = render(target, "ns", namespaces=["a", "b"])
    bindings = [entry for entry in manifests if entry["metadata"]["name"].endswith("-builds")]
    assert [(entry["kind"], entry["metadata"].get("namespace")) for entry in bindings] == [
        ("ClusterRole", None),
        ("RoleBinding", "a"),
        ("RoleBinding", "b"),
    ]
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["args"][-3:] == ["--namespace", "a", "b"]


def test_only_the_container_that_writes_binfmt_misc_is_privileged_and_only_the_other_has_a_token(
    target: Target,
) -> None:
    pod = one(render(target, "ns", qemu={"enabled": True}), "DaemonSet")["spec"]["template"]["spec"]
    (register,), (label,) = pod["initContainers"], pod["containers"]
    assert register["securityContext"]["privileged"]
    assert register["restartPolicy"] == "Always"
    assert not label["securityContext"].get("privileged")
    assert label["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not pod["automountServiceAccountToken"]
    token = {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    assert token in label["volumeMounts"]
    assert "token" not in [mount["name"] for mount in register["volumeMounts"]]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_of_the_profiles_only_the_container_that_loads_has_a_capability_and_only_where_app_armor_is(
    target: Target,
) -> None:
    alone = one(render(target, "ns", profile={"enabled": True}), "DaemonSet")["spec"]["template"]["spec"]
    manifests = render(target, "ns", profile={"enabled": True, "appArmor": True})
    lays, loads = one(manifests, "DaemonSet", "-profile"), one(manifests, "DaemonSet", "-profile-apparmor")
    first, second = (each["spec"]["template"]["spec"] for each in (lays, loads))
    assert first["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert second["nodeSelector"] == {"kubernetes.io/os": "linux", APP_ARMOR_LABEL: "true"}
    assert lays["spec"]["selector"] != loads["spec"]["selector"]
    (lay,), (load,) = first["initContainers"], second["initContainers"]
    assert lay["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert load["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["MAC_ADMIN"]}
    uses = [next(arg for arg in pod["containers"][0]["args"] if "app-armor" in arg) for pod in (alone, first, second)]
    assert uses == ["--app-armor=nowhere", "--app-armor=elsewhere", "--app-armor=here"]
    for pod, profile in ((first, None), (second, {"type": "Localhost", "localhostProfile": APP_ARMOR_PROFILE})):
        (label,) = pod["containers"]
        assert label["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert label["securityContext"]["seccompProfile"]["localhostProfile"] == PROFILE_FILE
        assert label["securityContext"].get("appArmorProfile") == profile
        assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)


def test_a_pod_that_labels_is_ready_when_it_has_and_is_told_when_it_may_not(target: Target) -> None:
    manifests = render(target, "ns", qemu={"enabled": True}, profile={"enabled": True, "appArmor": True})
    for suffix in ("-qemu", "-profile", "-profile-apparmor"):
        daemonset = one(manifests, "DaemonSet", suffix)["spec"]
        assert daemonset["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        (label,) = daemonset["template"]["spec"]["containers"]
        (started,) = (arg.removeprefix("--started=") for arg in label["args"] if arg.startswith("--started="))
        assert label["startupProbe"]["exec"]["command"] == ["test", "-e", started]
        assert any(started.startswith(f"{mount['mountPath']}/") for mount in label["volumeMounts"])
        assert "--pod=$(POD_UID)" in label["args"]
        assert {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}} in label["env"]
    # By default 422, which tells a pod that another one answers for the labels.
    for suffix in ("-qemu", "-profile"):
        policy = one(manifests, "ValidatingAdmissionPolicy", suffix)["spec"]["validations"]
        assert {each["reason"] for each in policy} == {"Forbidden"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {
                "profile": {"enabled": True, "appArmor": True},
                "policy": {"rootless": {"profile": "Localhost", "appArmorProfile": "x"}},
            },
            "leave out policy.rootless.appArmorProfile",
        ),
        ({"profile": {"appArmor": True}}, "profile.appArmor needs profile.enabled"),
        ({"imagee": {}}, "additional properties 'imagee' not allowed"),
        ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
        ({"logFormat": "xml"}, "at '/logFormat': value must be one of 'json', 'console'"),
        ({"image": {"tag": "not a tag"}}, "at '/image/tag': 'not a tag' does not match pattern"),
        ({"namespaces": ["a", "a"]}, "at '/namespaces': items at 0 and 1 are equal"),
        ({"podLabels": {"a": 1}}, "at '/podLabels/a': got number, want string"),
        ({"extraEnv": [{"value": "x"}]}, "at '/extraEnv/0': missing property 'name'"),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "at '/podDisruptionBudget/maxUnavailable'"),
        ({"networkPolicy": {"apiServerPorts": []}}, "at '/networkPolicy/apiServerPorts': minItems: got 0, want 1"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "at '/metrics/serviceMonitor/interval'"),
        ({"qemu": {"architectures": ["mips"]}}, "at '/qemu/architectures/0': value must be one of '386', 'amd64'"),
        ({"test": {"platforms": ["amd64"]}}, "at '/test/platforms/0': 'amd64' does not match pattern"),
        (
            {"metrics": {"service": False, "serviceMonitor": {"enabled": True}}},
            "metrics.serviceMonitor.enabled needs metrics.service: a ServiceMonitor scrapes a Service",
        ),
        (
            {"metrics": {"rules": {"enabled": True, "disabled": ["MultiArchBuildNoSuch"]}}},
            "metrics.rules.disabled: there is no alert MultiArchBuildNoSuch: use MultiArchBuildOperatorDown, ",
        ),
    ],
    ids=lambda entry: next(iter(entry)) if isinstance(entry, dict) else "",
)
def test_wrong_values_are_refused_with_the_place_and_the_reason(
    target: Target, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(CommandError) as refused:
        render(target, "ns", **values)
    assert message in str(refused.value)


def test_a_kubernetes_that_does_not_know_the_fields_of_our_pods_is_refused(target: Target) -> None:
    command = ("helm", "template", "mab", str(CHART), "--kube-version")
    with pytest.raises(CommandError, match=r"chart requires kubeVersion: >=1\.30\.0-0"):
        target.run(*command, "1.29.9")
    target.run(*command, "1.30.0", "--set", "qemu.enabled=true")


def test_helm_has_nothing_to_complain_about(target: Target) -> None:
    target.run("helm", "lint", "--strict", str(CHART), "--values", "-", stdin=json.dumps(EVERYTHING))
    target.run("helm", "lint", "--strict", str(CHART))


def test_the_version_is_the_packages_and_the_files_are_in_the_archive(target: Target, tmp_path: Any) -> None:
    target.run("helm", "package", str(CHART), "--destination", str(tmp_path))
    out = target.run("tar", "-tzf", str(tmp_path / f"multiarchbuild-{__version__}.tgz"))
    files = {"README.md", "alerts.yaml", "dashboard.json", "values.schema.json", "templates/crds.yaml"}
    assert {f"multiarchbuild/{name}" for name in files} <= set(out.split())
