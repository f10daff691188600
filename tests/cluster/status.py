"""What runs of an instance, for a person."""

from dataclasses import dataclass

from tests.cluster import cgroups, controlplane
from tests.cluster.kubectl import Kubectl, is_ready
from tests.cluster.layout import Layout
from tests.cluster.lifecycle import machines, stored


@dataclass(frozen=True)
class Status:
    """Lines to show, and whether the cluster is whole."""

    lines: tuple[str, ...]
    healthy: bool


def status(layout: Layout) -> Status:
    """Looks at machines, services and nodes of the instance; changes nothing."""
    wanted = stored(layout)
    if wanted is None:
        return Status((f"cluster {layout.instance} is not up: `make cluster` brings it up",), healthy=False)
    lines = [f"cluster {layout.instance} on {layout.addresses.network}"]
    healthy = True
    for machine in machines(layout):
        process = machine.process()
        services = machine.services() if process else {}
        healthy = healthy and process is not None and all(state["pid"] for state in services.values())
        shown = ", ".join(_service(name, state) for name, state in services.items())
        lines.append(f"  {machine.name:<10} {f'pid {process.pid}: {shown}' if process else 'stopped'}")
    kubectl = Kubectl(layout.bin / "kubectl", layout.kubeconfig)
    if any(machine.name == controlplane.NAME and machine.process() for machine in machines(layout)) and kubectl.ready():
        nodes = kubectl.nodes()
        for name in (node.name for node in wanted.nodes):
            ready = name in nodes and is_ready(nodes[name])
            healthy = healthy and ready
            lines.append(f"  node {name} ({_arch(nodes.get(name))}): {'Ready' if ready else 'not Ready'}")
    else:
        healthy = False
        lines.append("  the API server does not answer")
    lines += [
        f"  kubeconfig {layout.kubeconfig}",
        f"  registries {layout.registry} (plain HTTP), {layout.secure_registry} (user and CA in {layout.facts})",
        f"  peak memory {cgroups.peak_memory(layout.instance) / 2**20:.0f} MiB, page cache included",
    ]
    if not healthy:
        lines.append("not healthy: `make cluster` repairs it")
    return Status(tuple(lines), healthy)


def _service(name: str, state: dict[str, int | None]) -> str:
    starts = state["starts"] or 0
    if state["pid"] is None:
        return f"{name} DOWN"
    return name if starts <= 1 else f"{name} (started {starts} times)"


def _arch(node: dict[str, object] | None) -> str:
    if node is None:
        return "absent"
    metadata = node["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata.get("labels", {}).get("kubernetes.io/arch", "?"))
