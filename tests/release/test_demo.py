"""`make demo` on a cluster of one's own: KUBECONFIG and nothing else."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack import registry
from hack.demo import NAMESPACE as DEMO
from hack.install import NAMESPACE
from hack.target import CommandError, Target, with_registry
from tests.cluster.build import ensure_programs
from tests.cluster.fixture import Cluster
from tests.cluster.layout import cache_directory
from tests.support import watch

pytestmark = [
    *(pytest.mark.e2e, pytest.mark.release, pytest.mark.xdist_group("alone")),
    pytest.mark.timeout(2400),  # images are built, on a slow machine without a cache
]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stranger(target: Target, cluster: Cluster, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody whose cluster it is: a kubeconfig, kubectl and helm.

    What the internet would have is in the local registry: the image of a registry, and the mirror that the nodes use.
    """
    if cluster.layout is None:
        pytest.skip("needs the local registry as a mirror")
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(ensure_programs(cache_directory(os.environ), ["registry"])["registry"], "usr/bin/registry")
    hub = target.facts.registry
    target.crane("append", "--platform=linux/amd64", "-b", f"{hub}/library/busybox:1.36", "-f", str(layer), "-t",
                 f"{hub}/library/{registry.IMAGE}")  # fmt: skip
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("kubectl", "helm"):
        (programs / name).symlink_to(cluster.program(name))
    shutil.copy(target.facts.kubeconfig, tmp_path / "kubeconfig")
    (tmp_path / "policy.yaml").write_text(json.dumps({"registries": target.registries}), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAB_", "KUBE"))}
    yield {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "MAB_POLICY": str(tmp_path / "policy.yaml"),
    }
    # Whoever comes next, this test at a second try too, can make nothing in a namespace that is still going.
    target.kubectl("delete", "namespace", DEMO, registry.NAMESPACE, "--ignore-not-found", "--timeout=590s")


def bring(target: Target, image: str) -> None:
    """Copy an image into the registry in the cluster. A forwarded port does not survive a connection that breaks."""
    for left in (4, 3, 2, 1, 0):
        with registry.forwarded(target.environment) as address:
            try:
                assert address, "kubectl port-forward has ended"
                target.crane("copy", image, f"{address}/{image.rpartition('/')[2]}")
            except (AssertionError, CommandError):
                if not left:
                    raise
            else:
                return


def test_the_demo_brings_its_registry_along(
    stranger: dict[str, str], target: Target, operator: str, reinstalled: dict[str, Any]
) -> None:
    del reinstalled
    # The image of the operator takes minutes to build: here it has been built already.
    with_registry(target.facts.kubeconfig)
    bring(target, operator)

    done = subprocess.run(["make", "demo"], cwd=ROOT, env=stranger, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    told = done.stdout
    assert f"==> a registry in namespace {registry.NAMESPACE}" in told
    assert "ok       Kubernetes: v1." in told
    assert "ok       builds for linux/arm64: natively" in told
    assert "==> digest: sha256:" in told
    assert "linux/amd64: node -p process.arch prints x64" in told
    expected = {f"{registry.FOR_NODES}/{operator.rpartition('/')[2]}"}

    def replaced(pods: watch.Objects) -> bool:
        # Those of before may take a while to end.
        staying = [pod for pod in pods.values() if "deletionTimestamp" not in pod["metadata"]]
        return {pod["spec"]["containers"][0]["image"] for pod in staying} == expected

    watch.wait_for(target, "pods", "-n", NAMESPACE, until=replaced, why=f"all pods are of {expected}")
