"""Simulated nodes, by KWOK in a machine of its own: they accept any number of pods and run none."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import addons
from tests.cluster.controlplane import user_kubeconfig
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import Arch, Layout
from tests.cluster.spec import MachineSpec, Service

NAME = "kwok"
LABEL = "type=kwok"
PODS_PER_NODE = 250


def spec(layout: Layout, programs: Mapping[str, Path], *, mtu: int) -> MachineSpec:
    """Returns the machine of the KWOK controller."""
    addresses = layout.addresses
    # It writes the status of nodes and pods that are not its own: only an administrator may.
    kubeconfig = user_kubeconfig(layout, NAME, common_name="kwok", organization="system:masters")
    return MachineSpec(
        name=NAME,
        address=f"{addresses.network[3]}/{addresses.machines.prefixlen}",
        gateway=str(addresses.host),
        mtu=mtu,
        files={"stages.yaml": (addons.DIRECTORY / "kwok.yaml").read_text()},
        directories=(),
        mounts=(),
        sysctls={},
        services=(
            Service(
                NAME,
                (
                    str(programs["kwok"]),
                    "--config=/run/machine/stages.yaml",
                    f"--kubeconfig={kubeconfig}",
                    f"--manage-nodes-with-label-selector={LABEL}",
                    "--node-lease-duration-seconds=200",
                ),
            ),
        ),
    )


def ensure_nodes(kubectl: Kubectl, count: int) -> None:
    """Makes the cluster have `count` simulated nodes, half of them amd64, half arm64; each has a taint of its own."""
    existing = {
        name for name, node in kubectl.nodes().items() if node["metadata"].get("labels", {}).get("type") == "kwok"
    }
    wanted = {f"kwok-{number}": list(Arch)[number % 2] for number in range(count)}
    if surplus := sorted(existing - wanted.keys()):
        kubectl("delete", "node", *surplus)
    missing = [_node(name, arch) for name, arch in wanted.items() if name not in existing]
    if missing:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": missing})
        kubectl("create", "-f", "-", stdin=listed)


def _node(name: str, arch: Arch) -> dict[str, object]:
    resources = {"cpu": "64", "memory": "256Gi", "pods": str(PODS_PER_NODE), "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "type": "kwok",
                "kubernetes.io/arch": str(arch),
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
            },
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": resources, "capacity": resources},
    }
