"""What is applied to every cluster: the DNS Service, and what the programs outside of Kubernetes may read."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.layout import Layout

DIRECTORY = Path(__file__).parent


def manifests(layout: Layout) -> str:
    """Returns all objects as one JSON List for `kubectl apply`."""
    items: list[dict[str, Any]] = list(yaml.safe_load_all((DIRECTORY / "dns.yaml").read_text()))
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    items.append(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": str(layout.addresses.dns_service), "ports": ports},
        }
    )
    items.append(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-control",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "multiarchbuild-cluster",
                },
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [str(layout.addresses.control)], "conditions": {"ready": True}}],
        }
    )
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
