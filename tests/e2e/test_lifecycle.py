"""How runs are asked for, limited and ended, and what two builds have to do with each other."""

import re
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support import watch
from tests.support.git import GitServer
from tests.support.tenant import AMD64, ARM64, BOTH, Build, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e

SLEEPING = inline("FROM busybox:1.36\nRUN sleep 600\n")
PICKY = inline(
    "FROM busybox:1.36\n"
    "RUN --mount=type=secret,id=allowed grep -qx $(uname -m) /run/secrets/allowed && uname -m > /machine\n"
)
"""Builds only for the machines that a secret names."""


def test_a_request_after_a_failure_builds_only_what_is_missing(tenant: Tenant) -> None:
    tenant.secret("allowed", machines="x86_64\n")
    secrets = [{"id": "allowed", "secretKeyRef": {"name": "allowed", "key": "machines"}}]
    build = tenant.build(source=PICKY, build={"secrets": secrets}, retries=2)
    first = build.failed("BuildFailed")
    assert platform(first, ARM64)["attempt"] == 1, "what the user has to mend is not tried again"
    assert not tenant.images.exists(f"{tenant.image()}:latest")

    tenant.secret("allowed", machines="x86_64\naarch64\n")
    build.rebuild()
    second = build.succeeded(after=first["run"]["id"])
    assert second["run"]["trigger"] == "Requested"
    assert platform(second, AMD64)["pod"] == platform(first, AMD64)["pod"], "it is not built again"
    built = [pod["metadata"]["annotations"]["multiarch.build/platforms"] for pod in build.pods() if is_of(pod, second)]
    assert built == [ARM64]
    assert [entry["result"] for entry in second["history"]] == ["Succeeded", "Failed"]


def test_runs_end_when_they_are_told_to(tenant: Tenant) -> None:
    slow = tenant.build("slow", source=SLEEPING, platforms=[AMD64], timeout="8s", output={"tags": ["slow"]})
    unwanted = tenant.build("unwanted", source=SLEEPING, platforms=[AMD64], output={"tags": ["unwanted"]})
    later = tenant.build("later", platforms=[AMD64], suspend=True, output={"tags": ["later"]})

    assert condition(later.until(lambda status: status.get("conditions")), "Ready")["reason"] == "Suspended"
    run = unwanted.until(lambda status: "run" in status and platform(status, AMD64)["phase"] == "Running")["run"]
    unwanted.annotate(cancel=run["id"])
    cancelled = unwanted.ended()
    assert (cancelled["run"]["result"], cancelled["run"]["reason"]) == ("Cancelled", "Cancelled")
    timed_out = slow.failed("TimedOut")
    # The step says what it was at when the time was over, unless it had not begun, or was between two.
    said = r"was still running when|took longer than spec.timeout \(8s\)|no step was running"
    assert re.search(said, timed_out["run"]["message"])
    assert "spec.timeout" in timed_out["run"]["message"]
    for build in (slow, unwanted, later):
        ended(build)

    requested = "2026-11-25T12:00:00Z"
    tenant.kubectl("annotate", "mab", "later", f"reconcile.fluxcd.io/requestedAt={requested}")
    later.until(lambda status: status.get("lastHandledReconcileAt") == requested)
    assert later.pods() == []


def age(build: Build) -> tuple[str, str]:
    """Return what orders builds, the oldest first."""
    meta = build.get()["metadata"]
    return meta["creationTimestamp"], meta["uid"]


def test_the_newer_of_two_builds_that_move_the_same_tag_is_told(tenant: Tenant) -> None:
    builds = [tenant.build(name, suspend=True) for name in ("one", "two")]
    # Within one second the uid decides, which nobody can choose.
    older, newer = sorted(builds, key=age)
    conflict = condition(newer.until(lambda status: condition(status, "TagConflict")), "TagConflict")
    assert (conflict["status"], conflict["reason"]) == ("True", "TagConflict")
    assert conflict["message"].startswith(f"{tenant.image()}:latest: also moved by {older.name}")
    assert not condition(older.status, "TagConflict")
    events = [event for event in newer.events(TagConflict=1) if event["reason"] == "TagConflict"]
    assert [event["type"] for event in events] == ["Warning"]
    assert not [event for event in older.events() if event["reason"] == "TagConflict"]
    older.delete()
    newer.until(lambda status: not condition(status, "TagConflict"), why="the conflict is over")


def test_the_policy_refuses_and_lets_builds_wait_for_their_turn(tenant: Tenant) -> None:
    greedy = {"resources": {"limits": {"memory": "65Gi"}}}
    refused = tenant.build("refused", timeout="7h", scheduling=greedy, output={"tags": ["refused"]})
    stalled = condition(refused.until(lambda status: condition(status, "Stalled")), "Stalled")
    assert stalled["reason"] == "PolicyDenied"
    assert "limits.memory is 65Gi, but at most 64Gi is allowed (policy: maxResources)" in stalled["message"]
    assert "timeout is 7h, but at most 6h is allowed (policy: maxTimeout)" in stalled["message"]
    assert "Ask an administrator" in stalled["message"]
    assert refused.pods() == []

    # Nothing runs on this node, so that the runs last as long as they have to.
    nowhere = {"strategy": "Native", "nodeSelector": {"pool": "none"}}

    def build(name: str) -> Build:
        return tenant.build(name, platforms=[AMD64], scheduling=nowhere, output={"tags": [name]})

    running = [build(f"build-{number}") for number in range(6)]
    for each in running:
        # Of builds that came in the same second any may be the first.
        each.started()
    waiting = build("build-6")
    queued = condition(waiting.until(lambda status: condition(status, "Reconciling")), "Reconciling")
    assert queued["reason"] == "Queued"
    assert "at most 6 runs of namespace" in queued["message"]
    running[2].annotate(cancel=running[2].status["run"]["id"])
    waiting.until(lambda status: "run" in status, why="its turn has come")


@pytest.mark.parametrize("provenance", ["Min", "Max"])
def test_the_same_commit_makes_the_same_index(tenant: Tenant, git_server: GitServer, provenance: str) -> None:
    repository = git_server.repository(f"{tenant.namespace}.git")
    dockerfile = (
        "FROM busybox:1.36 AS made\nRUN date > /dev/null && mkdir /made && uname -m > /made/m\n"
        "FROM busybox:1.36\nCOPY . /app\nCOPY --from=made /made /made\nRUN cp /app/a /made/a\n"
    )
    repository.commit({"Dockerfile": dockerfile, "a": "1\n"})
    source = {"git": {"url": repository.url, "ref": "main"}}
    # Of one name, which stands in the provenance; each builder is a new pod, and no cache is read.
    builds = [tenant.build(name, source=source, attestations={"provenance": provenance}) for name in ("one", "other")]
    one, other = (build.succeeded() for build in builds)
    assert all(platform(status, name)["cache"]["hits"] == 0 for status in (one, other) for name in BOTH)
    assert one["image"]["digest"] == other["image"]["digest"]
    assert all(platform(one, name)["pushed"] != platform(other, name)["pushed"] for name in BOTH), "as BuildKit made it"


def is_of(pod: dict[str, dict[str, dict[str, str]]], status: dict[str, dict[str, str]]) -> bool:
    labels = pod["metadata"]["labels"]
    of_run = labels["multiarch.build/run"] == status["run"]["id"]
    return of_run and labels["multiarch.build/role"] == "build"


def alive(pod: dict[str, dict[str, str]]) -> bool:
    return pod["status"]["phase"] in {"Pending", "Running"}


def ended(build: Build) -> None:
    """Wait until no pod of the build goes on that is not on its way out: a result is told before they are deleted."""

    def going(pods: Iterable[dict[str, Any]]) -> bool:
        return any("deletionTimestamp" not in pod["metadata"] and alive(pod) for pod in pods)

    if going(build.pods()):
        selector = f"multiarch.build/build-uid={build.get()['metadata']['uid']}"
        watch.wait_for(
            build.tenant.target,
            *("pods", "-n", build.tenant.namespace, "-l", selector),
            until=lambda pods: not going(pods.values()),
            why=f"all pods of {build.name} end",
        )
