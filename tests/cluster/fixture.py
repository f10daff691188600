"""The pytest fixture `cluster`: the local cluster, or the one that KUBECONFIG names.

Environment:
    KUBECONFIG: a cluster to use instead of the local one, with the next two.
    MAB_TEST_REGISTRY: registry, or a path in one, that the host, the nodes and the pods can push to and pull from.
    MAB_TEST_REGISTRY_INSECURE: `1` where that registry speaks plain HTTP.
    MAB_CLUSTER_TEARDOWN: `1` takes the local cluster down after the tests; otherwise it stays for the next run.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import cli, facts, lifecycle, network
from tests.cluster.errors import ClusterError
from tests.cluster.facts import Facts
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import OWN_INSTANCE, Layout, cache_directory, parse_nodes
from tests.cluster.lifecycle import Wanted


@dataclass(frozen=True)
class Cluster:
    """A cluster under test.

    Attributes:
        facts: what is known of it.
        kubectl: kubectl as its administrator.
        layout: of the local instance; None for a cluster that is somebody else's, whose nodes are not ours to stop.
    """

    facts: Facts
    kubectl: Kubectl
    layout: Layout | None

    def program(self, name: str) -> Path:
        """Returns the path of kubectl, helm, crane or buildctl."""
        found = Path(self.facts.bin, name) if self.facts.bin else shutil.which(name)
        if found is None:
            raise ClusterError(f"{name} is not on PATH: install it")
        return Path(found)

    def nodes_of(self, arch: str) -> tuple[str, ...]:
        """Returns the names of the nodes of an architecture that the cluster has now."""
        nodes = self.kubectl.nodes()
        return tuple(name for name, node in nodes.items() if node["metadata"]["labels"]["kubernetes.io/arch"] == arch)

    def stop_node(self, name: str) -> None:
        """Stops a local node as a power cut would."""
        lifecycle.stop_node(self.local, name)

    def start_node(self, name: str) -> None:
        """Starts a local node again, without waiting until it is Ready."""
        lifecycle.start_node(self.local, name)

    def set_nodes(self, nodes: str, labels: Mapping[str, Mapping[str, str]] | None = None) -> "Cluster":
        """Adds and removes local nodes until they are `nodes`, as in `amd64=2,arm64=0`; returns the cluster then.

        Nodes that stay are not disturbed.
        """
        before = lifecycle.stored(self.local) or Wanted()
        wanted = Wanted(parse_nodes(nodes), labels or {}, before.kwok)
        return bring_up(self.local, wanted)

    @property
    def local(self) -> Layout:
        """The local instance; skips the test where there is none."""
        if self.layout is None:
            pytest.skip("stops and starts nodes, which only the local cluster allows")
        return self.layout


def bring_up(layout: Layout, wanted: Wanted) -> Cluster:
    """Brings a local instance up and returns it."""
    cli.bring_up(layout, wanted, cache=cache_directory(os.environ))
    known = facts.read(layout.facts)
    return Cluster(known, Kubectl(layout.bin / "kubectl", layout.kubeconfig), layout)


def is_external(environ: Mapping[str, str], layout: Layout) -> bool:
    """Returns whether the environment names another cluster than the local instance."""
    return environ.get("KUBECONFIG", str(layout.kubeconfig)) != str(layout.kubeconfig)


def external(environ: Mapping[str, str]) -> Cluster:
    """Returns the cluster that the environment names, with its registry.

    Raises:
        ClusterError: where something of it is missing.
    """
    registry = environ.get("MAB_TEST_REGISTRY")
    if not registry:
        raise ClusterError(
            "KUBECONFIG is set but MAB_TEST_REGISTRY is not: name a registry that host, nodes and pods can use, "
            "or unset KUBECONFIG for the local cluster"
        )
    insecure = environ.get("MAB_TEST_REGISTRY_INSECURE") == "1"
    program = shutil.which("kubectl", path=environ.get("PATH"))
    if program is None:
        raise ClusterError("kubectl is not on PATH: install it")
    kubectl = Kubectl(Path(program), Path(environ["KUBECONFIG"]))
    host = registry.partition("/")[0]
    known = Facts(
        instance="",
        kubeconfig=environ["KUBECONFIG"],
        bin="",
        registry=registry,
        registry_insecure=insecure,
        secure_registry=None,
        buildkitd_toml=f'[registry."{host}"]\n  http = true\n' if insecure else "",
        images={},
    )
    return Cluster(known, kubectl, None)


def control_plane_layout() -> Layout:
    """Returns the layout of what `control_plane` brings up; its addresses are known once it is up."""
    return lifecycle.find(instance=f"{OWN_INSTANCE[:5]}api")


@contextmanager
def control_plane(kubeconfig: Path | None = None) -> Iterator[Path]:
    """Yields the kubeconfig of a real API server without nodes, which is taken down after the block.

    Args:
        kubeconfig: of an API server to use instead, which stays.
    """
    if kubeconfig is not None:
        yield kubeconfig
        return
    layout = control_plane_layout()
    if not layout.desired.exists():
        layout = lifecycle.find(instance=layout.instance, network=network.unused(layout.instance))
    bring_up(layout, Wanted(nodes=()))
    try:
        yield layout.kubeconfig
    finally:
        lifecycle.down(layout)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that tests run on, brought up where it is not."""
    layout = lifecycle.find()
    if is_external(os.environ, layout):
        yield external(os.environ)
        return
    yield bring_up(layout, lifecycle.stored(layout) or Wanted())
    if os.environ.get("MAB_CLUSTER_TEARDOWN") == "1":
        lifecycle.down(layout)
