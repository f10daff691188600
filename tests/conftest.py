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
from tests.cluster.fixture import Cluster, cluster, control_plane
from tests.cluster.locks import locked
from tests.support import git, sbom
from tests.support.gate import Gate
from tests.support.git import GitServer
from tests.support.tenant import Tenant
from tests.support.turns import turn

__all__ = ["cluster"]

POLICY = {
    "maxResources": {"memory": "64Gi"},
    "maxTimeout": "6h",
    "concurrency": {"namespace": 6},
    "keptBuilders": {"default": "0s"},
    "cacheVolumes": {"maxSize": "1Gi", "storageClasses": ["test-*"]},
}
"""What the operator under test allows: more than any test needs, but for those that are about it.

Builders stay where a test says so: with each that stays there would be less to see of how a run ends."""
_FAILED = pytest.StashKey[bool]()
_TOGETHER = ("services", "api_server")
"""Fixtures of which the whole run of the tests has one: who uses them runs in one worker."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what uses the same expensive thing, and begin with what would have to wait for others later.

    Tests that have the cluster alone take as long as all that need no cluster: side by side, no worker waits.
    """
    for item in items:
        for fixture in set(_TOGETHER) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(fixture))
    first = ("alone", *_TOGETHER, "lifecycle")
    items.sort(key=lambda item: first.index(group) if (group := _group(item)) in first else len(first))


def _group(item: pytest.Item) -> str:
    """Return the group of tests that one worker runs which the test belongs to."""
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let fixtures know whether the test has failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit of the test
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Share the cluster with the other worker, or have it alone: `@pytest.mark.xdist_group("alone")`.

    From before the first fixture to after the last: those of the session, too, are made and ended while no test of the
    other worker has taken nodes or the operator away.
    """
    if "cluster" not in getattr(item, "fixturenames", ()):
        return (yield)
    with turn(_shared(item.config), alone=_group(item) == "alone"):
        return (yield)


def _shared(config: pytest.Config) -> Path:
    """Return the folder that all workers of this run of the tests have in common."""
    own: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return own.parent if hasattr(config, "workerinput") else own


@pytest.fixture(scope="session")
def api_server() -> Iterator[Path]:
    """The kubeconfig of a real API server without nodes and without our operator, for this run of the tests alone.

    On the cluster, the operator that is installed there would act on what these tests create.
    """
    with control_plane() as kubeconfig:
        yield kubeconfig


@pytest.fixture(scope="session")
def target(cluster: Cluster) -> Target:
    """The cluster with its programs."""
    return Target(cluster.facts)


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Path:
    """A folder that all workers of this run of the tests have in common."""
    return _shared(pytestconfig)


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
def gate(git_server: GitServer, namespace: str) -> Gate:
    """What a RUN may wait for, until the test opens it."""
    return Gate(git_server, namespace)


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
