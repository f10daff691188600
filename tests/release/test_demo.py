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
from hack.target import Target, with_registry
from tests.cluster.build import ensure_programs
from tests.cluster.fixture import Cluster
from tests.cluster.layout import cache_directory

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
    target.kubectl("delete", "namespace", DEMO, registry.NAMESPACE, "--ignore-not-found", "--wait=false")


def test_the_demo_brings_its_registry_along(
    stranger: dict[str, str], target: Target, operator: str, reinstalled: dict[str, Any]
) -> None:
    del reinstalled
    # The image of the operator takes minutes to build: here it has been built already.
    with_registry(target.facts.kubeconfig)
    with registry.forwarded(target.environment) as address:
        target.crane("copy", operator, f"{address}/{operator.rpartition('/')[2]}")

    done = subprocess.run(["make", "demo"], cwd=ROOT, env=stranger, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    told = done.stdout
    assert f"==> a registry in namespace {registry.NAMESPACE}" in told
    assert "ok       Kubernetes: v1." in told
    assert "ok       builds for linux/arm64: natively" in told
    assert "==> digest: sha256:" in told
    assert "linux/amd64: node -p process.arch prints x64" in told
    pods = json.loads(target.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {
        f"{registry.FOR_NODES}/{operator.rpartition('/')[2]}"
    }
