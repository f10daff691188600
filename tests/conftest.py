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
from tests.cluster.fixture import Cluster, cluster
from tests.cluster.locks import locked
from tests.support import git
from tests.support.git import GitServer
from tests.support.tenant import Tenant

__all__ = ["cluster"]

POLICY = {"maxResources": {"memory": "64Gi"}, "maxTimeout": "6h", "concurrency": {"namespace": 6}}
"""What the operator under test allows: more than any test needs, but for those that are about it."""
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let fixtures know whether the test has failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    """The cluster to test against, as its administrator."""
    return Path(cluster.facts.kubeconfig)


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
            install(target, image, POLICY)
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
