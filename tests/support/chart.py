"""The chart: rendered by Helm, as manifests."""

import json
from typing import Any

import yaml

from hack.install import CHART
from hack.target import Target

Manifest = dict[str, Any]


def render(target: Target, namespace: str, release: str = "mab", **values: Any) -> list[Manifest]:
    """Return what the chart makes of `values`.

    Raises:
        CommandError: Helm refuses them; the message is Helm's.
    """
    command = ("helm", "template", release, str(CHART), "--namespace", namespace, "--values", "-")
    out = target.run(*command, stdin=json.dumps(values))
    return [manifest for manifest in yaml.safe_load_all(out) if manifest]


def one(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """Return the only manifest of a kind whose name ends with `suffix`."""
    found = [entry for entry in manifests if entry["kind"] == kind and entry["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{kind} {suffix}: {[entry['metadata']['name'] for entry in found]}"
    return found[0]


EVERYTHING: Manifest = {
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "pull"}],
    "replicas": 2,
    "policy": {"emulation": {"allowed": False}},
    "logFormat": "console",
    "serviceAccount": {"name": "robot", "annotations": {"example.com/role": "x"}},
    "confinement": {"excludedNamespaces": ["kube-system"], "namespaceLabels": {"example.com/builds": "true"}},
    "commonLabels": {"team": "platform"},
    "deploymentAnnotations": {"example.com/owner": "platform"},
    "podLabels": {"example.com/pod": "label"},
    "podAnnotations": {"example.com/pod": "annotation"},
    "extraArgs": ["--no-leader-elect"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {}}]},
    "metrics": {
        "serviceLabels": {"scrape": "me"},
        "serviceAnnotations": {"prometheus.io/scrape": "true"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "platform"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Builds"}},
    },
    "test": {"image": "registry.example.com/test", "secretRefs": [{"name": "push"}]},
    "qemu": {
        "enabled": True,
        "architectures": ["386", "arm64", "s390x"],
        "serviceAccount": {"annotations": {"example.com/role": "y"}},
        "podAnnotations": {"example.com/pod": "annotation"},
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"pool": "builds"},
        "tolerations": [{"operator": "Exists"}],
    },
    "profile": {
        "enabled": True,
        "appArmor": True,
        "serviceAccount": {"annotations": {"example.com/role": "z"}},
        "podAnnotations": {"example.com/pod": "annotation"},
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"pool": "builds"},
        "tolerations": [{"operator": "Exists"}],
    },
}
"""Every switch of the chart turned on."""


def left_of(target: Target, release: str) -> set[str]:
    """Return what is left of a release in the whole cluster, as `kind/name`, once all that is being deleted is gone."""
    kinds = ",".join(target.kubectl("api-resources", "--verbs=list", "--output=name").split())
    selector = ("--all-namespaces", "--selector", f"app.kubernetes.io/instance={release}")
    going = ("pods", "replicasets", "controllerrevisions", "endpointslices")
    target.kubectl("wait", "--for=delete", ",".join(going), *selector, "--timeout=300s")
    return set(target.kubectl("get", kinds, *selector, "--output=name").split())
