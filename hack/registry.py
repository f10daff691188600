"""A registry in the cluster, for clusters that name none: it keeps nothing when its pod goes.

It has a name for each side. Pods push to its Service. Nodes pull from their own localhost, where a pod on each node
hands on what the Service has: container runtimes take localhost without TLS, and a NodePort is not on localhost
wherever kube-proxy works with nftables or IPVS. The host reaches it by `kubectl port-forward`.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

NAMESPACE: Final = "multiarchbuild-registry"
NAME: Final = "registry"
PORT: Final = 5000
NODE_PORT: Final = 25000
"""Port on the localhost of each node."""
FOR_PODS: Final = f"{NAME}.{NAMESPACE}.svc:{PORT}"
FOR_NODES: Final = f"localhost:{NODE_PORT}"
IMAGE: Final = "registry:3"
_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def manifests() -> list[dict[str, Any]]:
    """Return the objects of the registry."""
    store = {"filesystem": {"rootdirectory": "/var/lib/registry"}, "delete": {"enabled": True}}
    base = {"version": "0.1", "log": {"level": "warn", "accesslog": {"disabled": True}}, "storage": store}
    configs = {
        "registry.json": {**base, "http": {"addr": f":{PORT}"}},
        "node.json": {
            **base,
            "http": {"addr": f"127.0.0.1:{NODE_PORT}"},
            "proxy": {"remoteurl": f"http://{FOR_PODS}"},
        },
    }
    privileged = {"pod-security.kubernetes.io/enforce": "privileged"}  # for the network of the node
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": privileged}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {name: json.dumps(config) for name, config in configs.items()},  # JSON is YAML
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
        },
        _workload("Deployment", NAME, _pod("registry.json", PORT)),
        _workload("DaemonSet", f"{NAME}-node", _pod("node.json", NODE_PORT, on_node=True)),
    ]


def _workload(kind: str, name: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _pod(config: str, port: int, *, on_node: bool = False) -> dict[str, Any]:
    probe = {"path": "/v2/", "port": port, **({"host": "127.0.0.1"} if on_node else {})}
    container = {
        "name": "registry",
        "image": IMAGE,
        "command": ["registry", "serve", f"/etc/mab/{config}"],
        "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
        "readinessProbe": {"httpGet": probe, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/mab"},
            {"name": "storage", "mountPath": "/var/lib/registry"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "storage", "emptyDir": {}}],
    }
    if on_node:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet", "tolerations": [{"operator": "Exists"}]}
    return pod


@contextmanager
def forwarded(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the address of the registry on this machine while a port of it is forwarded; nothing where that fails."""
    command = ["kubectl", "port-forward", f"service/{NAME}", f":{PORT}", "--namespace", NAMESPACE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=dict(environment), stdout=pipe, stderr=subprocess.DEVNULL, text=True) as forward:
        assert forward.stdout is not None
        try:
            found = _FORWARDED.match(forward.stdout.readline())
            yield f"127.0.0.1:{found[1]}" if found else ""
        finally:
            forward.terminate()
