"""Flux's own kustomize-controller applies examples/flux and waits for the image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import flux, watch
from tests.support.flux import Flux
from tests.support.markdown import ROOT
from tests.support.tenant import RESOURCE, Tenant, condition

pytestmark = pytest.mark.e2e

EXAMPLE = ROOT / "examples" / "flux"
FILES = {
    str(file.relative_to(EXAMPLE)): file.read_text(encoding="utf-8")
    for folder in ("image", "deploy")
    for file in sorted((EXAMPLE / folder).iterdir())
}


@pytest.fixture
def controller(tenant: Tenant, tmp_path: Path) -> Iterator[Flux]:
    """Flux at work in the tenant's namespace."""
    with flux.running(tenant.target, tenant.namespace, tmp_path) as controller:
        yield controller


def _kustomizations(tenant: Tenant) -> list[dict[str, Any]]:
    """Return the example's Kustomizations for this cluster: an ExternalArtifact stands in for the GitRepository."""
    documents = yaml.safe_load_all((EXAMPLE / "cluster.yaml").read_text(encoding="utf-8"))
    found = [document for document in documents if document["kind"] == "Kustomization"]
    for document in found:
        document["metadata"]["namespace"] = tenant.namespace
        document["spec"] |= {
            "sourceRef": {"kind": "ExternalArtifact", "name": "hello"},
            "targetNamespace": tenant.namespace,
            "postBuild": {"substitute": {"registry": f"{tenant.target.facts.registry}/{tenant.namespace}"}},
            # A dependency that is not ready is looked at again after this time.
            "retryInterval": "2s",
        }
    return found


def _ready(name: str, status: str, revision: str = "") -> Any:
    """Return a check that the Kustomization `name` has this status of Ready, for a revision other than `revision`."""

    def check(objects: watch.Objects) -> dict[str, Any] | None:
        for entry in objects.values():
            state = entry.get("status", {})
            tried = state.get("lastAttemptedRevision", "")
            found = entry["metadata"]["name"] == name and condition(state, "Ready").get("status") == status
            if found and tried != revision:
                return dict(state)
        return None

    return check


def test_flux_is_ready_when_the_image_is_and_fails_when_the_build_does(tenant: Tenant, controller: Flux) -> None:
    def until(name: str, status: str, revision: str = "") -> dict[str, Any]:
        what = ("kustomizations.kustomize.toolkit.fluxcd.io", "-n", tenant.namespace)
        check = _ready(name, status, revision)
        return watch.wait_for(tenant.target, *what, until=check, why=f"{name} is Ready={status}")

    def build() -> dict[str, Any]:
        return dict(json.loads(tenant.kubectl("get", RESOURCE, "hello", "-o", "json"))["status"])

    controller.artifact("hello", FILES)
    for kustomization in _kustomizations(tenant):
        tenant.apply(kustomization)

    waiting = until("hello-image", "Unknown")
    assert condition(waiting, "Reconciling")["status"] == "True"
    applied = until("hello-image", "True")
    status = build()
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "Ready")["lastTransitionTime"] <= condition(applied, "Ready")["lastTransitionTime"]

    # What depends on it runs the image of the tag that the build has moved, on the nodes of both architectures.
    until("hello-deploy", "True")
    pods = tenant.list("pods", "app=hello")
    assert {pod["status"]["containerStatuses"][0]["ready"] for pod in pods} == {True}

    broken = FILES["image/build.yaml"].replace("RUN uname -m", "RUN false && uname -m")
    controller.artifact("hello", {**FILES, "image/build.yaml": broken})
    failed = until("hello-image", "False", applied["lastAttemptedRevision"])
    ready = condition(failed, "Ready")
    assert ready["reason"] == "HealthCheckFailed", ready
    assert "MultiArchBuild" in ready["message"]
    assert condition(build(), "Ready")["reason"] == "BuildFailed"
    assert build()["image"] == status["image"], "the image that was published stays the one to run"
