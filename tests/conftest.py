"""A real cluster for every test that asks for one, with the operator of this working tree installed in it."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.image import build_image
from hack.install import install
from hack.target import Target
from tests.cluster import lifecycle, network
from tests.cluster.fixture import Cluster, bring_up, cluster
from tests.cluster.layout import OWN_INSTANCE
from tests.cluster.lifecycle import Wanted
from tests.cluster.locks import locked
from tests.support import git, sbom
from tests.support.git import GitServer
from tests.support.tenant import Tenant
from tests.support.turns import turn

__all__ = ["cluster"]

POLICY = {"maxResources": {"memory": "64Gi"}, "maxTimeout": "6h", "concurrency": {"namespace": 6}}
"""What the operator under test allows: more than any test needs, but for those that are about it."""
_FAILED = pytest.StashKey[bool]()
_TOGETHER = ("api_server", "services")
"""Fixtures of which the whole run of the tests has one: who uses them runs in one worker."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what uses the same expensive thing."""
    for item in items:
        for fixture in set(_TOGETHER) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(fixture))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let fixtures know whether the test has failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Share the cluster with the other worker, or have it alone: `@pytest.mark.xdist_group("alone")`."""
    if "cluster" not in request.fixturenames:
        yield
        return
    group = request.node.get_closest_marker("xdist_group")
    with turn(request.getfixturevalue("shared"), alone=group is not None and group.args == ("alone",)):
        yield


@pytest.fixture(scope="session")
def api_server() -> Iterator[Path]:
    """The kubeconfig of a real API server without nodes and without our operator, for this run of the tests alone.

    On the cluster, the operator that is installed there would act on what these tests create.
    """
    instance = f"{OWN_INSTANCE[:5]}api"
    layout = lifecycle.find(instance=instance)
    if not layout.desired.exists():
        layout = lifecycle.find(instance=instance, network=network.unused(instance))
    bring_up(layout, Wanted(nodes=()))
    yield layout.kubeconfig
    lifecycle.down(layout)


@pytest.fixture(scope="session")
def target(cluster: Cluster) -> Target:
    """The cluster with its programs."""
    return Target(cluster.facts)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run of the tests have in common."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def operator(target: Target, shared: Path) -> str:
    """The operator, built from the working tree and installed by its chart; returns its image."""
    done = shared / "operator.json"
    with locked(shared / "operator.lock", waiting="waiting for another worker to install the operator"):
        if not done.exists():
            image = build_image(target)
            policy = {**POLICY, "images": {"sbom": sbom.image(target)}}
            # Tests take nodes for arm64 away, and are not about the operator being on one.
            install(target, image, policy, nodeSelector={"kubernetes.io/arch": "amd64"})
            git.stop(target)
            done.write_text(json.dumps(image))
    return str(json.loads(done.read_text()))


@pytest.fixture(scope="session")
def git_server(target: Target, operator: str, shared: Path) -> GitServer:
    """A git server in the cluster."""
    with locked(shared / "git.lock", waiting="waiting for another worker to start the git server"):
        return git.start(target, operator)


@pytest.fixture
def namespace(target: Target) -> Iterator[str]:
    """A namespace for one test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    target.kubectl("create", "namespace", name)
    yield name
    target.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def tenant(request: pytest.FixtureRequest, target: Target, operator: str, namespace: str) -> Iterator[Tenant]:
    """A namespace for one test, with the operator at work; what happened is printed when the test fails."""
    del operator
    tenant = Tenant(target, namespace)
    yield tenant
    if request.node.stash.get(_FAILED, False):
        print(tenant.story())
