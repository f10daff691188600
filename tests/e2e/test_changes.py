"""What happens to a run when its resource is edited or deleted."""

import pytest

from tests.support import watch
from tests.support.tenant import AMD64, BOTH, Build, Tenant, inline, platform

pytestmark = pytest.mark.e2e

SLOW = "FROM busybox:1.36\nRUN sleep 120\n"
CHILDREN = "pods,configmaps"


def running(build: Build) -> None:
    """Wait until both platforms are being built."""
    build.until(
        lambda status: [entry["phase"] for entry in status.get("run", {}).get("platforms", ())] == ["Running"] * 2,
        why="both platforms are being built",
    )


def test_deleting_removes_everything(tenant: Tenant) -> None:
    build = tenant.build(source=inline(SLOW))
    running(build)
    selector = f"multiarch.build/build-uid={build.get()['metadata']['uid']}"
    assert len(tenant.list("pods", selector)) == len(BOTH)
    assert len(tenant.list("configmaps", selector)) == 1
    build.delete()
    for kind in CHILDREN.split(","):
        watch.gone(tenant.target, kind, "-n", tenant.namespace, "-l", selector)


def test_editing_supersedes_the_run(tenant: Tenant) -> None:
    build = tenant.build(source=inline(SLOW))
    running(build)
    first = build.status["run"]
    build.patch(source=inline("FROM busybox:1.36\nRUN echo second > /version\n"))
    second = build.succeeded()
    assert second["run"]["id"] != first["id"]
    assert second["run"]["trigger"] == "SpecChanged"
    history = [(entry["id"], entry["result"]) for entry in second["history"]]
    assert history == [(second["run"]["id"], "Succeeded"), (first["id"], "Superseded")]
    for entry in first["platforms"]:
        watch.gone(tenant.target, "pods", "-n", tenant.namespace, "--field-selector", f"metadata.name={entry['pod']}")
    digest = next(image["digest"] for image in second["image"]["platforms"] if image["platform"] == AMD64)
    assert tenant.images.file(f"{tenant.image()}@{digest}", "/version") == "second\n"
    assert platform(second, AMD64)["attempt"] == 1
    reasons = [event["reason"] for event in build.events(Superseded=1, RunStarted=2)]
    assert reasons.count("Superseded") == 1
    assert reasons.count("RunStarted") == 2
