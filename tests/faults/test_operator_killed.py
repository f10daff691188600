"""The operator is killed, and the next one goes on: all state is in the cluster."""

import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from hack.target import Target
from tests.support import watch
from tests.support.gate import Gate
from tests.support.operator_process import OperatorProcess
from tests.support.tenant import (
    AMD64,
    ARM64,
    BOTH,
    RESOURCE,
    Build,
    Status,
    Tenant,
    condition,
    has_ended,
    inline,
    was_handed_over,
)

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("alone")]

# The platforms end one after the other.
DOCKERFILE = "FROM busybox:1.36\nRUN [ $(uname -m) = x86_64 ] && sleep 4 || sleep 9\n"


@pytest.fixture
def elsewhere(target: Target) -> Iterator[Tenant]:
    """A second namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    target.kubectl("create", "namespace", name)
    yield Tenant(target, name)
    target.kubectl("delete", "namespace", name, "--wait=false")


def phases(status: Status) -> dict[str, str]:
    return {entry["platform"]: entry["phase"] for entry in status.get("run", {}).get("platforms", ())}


def test_killed_at_five_moments_of_one_run(tenant: Tenant, process: OperatorProcess, gate: Gate) -> None:
    # The platforms end one after the other, when the test lets them.
    dockerfile = f"FROM busybox:1.36\nRUN {gate.wait('$(uname -m)')}\n"
    with watch.recording(tenant.target, "pods", "-n", tenant.namespace) as pods:
        process.start()
        build = tenant.build(source=inline(dockerfile))

        tenant.pods_until("build", lambda pods: len(pods) >= 1, "a builder has been created")
        process.kill()  # 1: the status may not know of it
        process.start()
        build.until(lambda status: set(phases(status).values()) == {"Running"}, why="both platforms are built")
        process.kill()  # 2: in the middle of the builds
        process.start()
        gate.open("x86_64")
        build.until(lambda status: phases(status).get(AMD64) == "Succeeded", why=f"{AMD64} is built")
        process.kill()  # 3: one platform is done, the other is not
        process.start()
        gate.open("aarch64")
        tenant.pods_until("publish", was_handed_over, "the publish step knows what was built")
        process.kill()  # 4: the index is pushed, verified and tagged while nobody looks
        tenant.pods_until("publish", lambda pods: all(map(has_ended, pods)), "the index is published")
        pushed = tenant.images.digest(f"{tenant.image()}:latest")
        assert "image" not in build.status
        process.start()
        status = build.succeeded()
        process.kill()  # 5: the end is written
        process.start()
        assert_one_run(build, status, pods)
        assert status["image"]["digest"] == pushed

    build.rebuild()  # it works on, and what is left of the first run disturbs nothing
    again = build.succeeded(after=status["run"]["id"])
    assert again["image"]["platforms"] == status["image"]["platforms"]
    assert_nothing_orphaned(tenant, build)


def test_killed_after_each_change_that_it_makes(tenant: Tenant, process: OperatorProcess) -> None:
    process.module = "tests.faults.mortal"
    with watch.recording(tenant.target, "pods", "-n", tenant.namespace) as pods:
        build = tenant.build(source=inline(DOCKERFILE))
        lives = 0
        while "result" not in build.status.get("run", {}):
            process.start()
            assert process.wait(watch.PATIENCE) == -signal.SIGKILL
            lives += 1
        status = build.succeeded()
        assert_one_run(build, status, pods)
    assert lives >= 6, "a ConfigMap, two builders, a status, the publish step, the status at the end"
    assert tenant.images.digest(f"{tenant.image()}:latest") == status["image"]["digest"]
    assert_nothing_orphaned(tenant, build)


def test_turns_are_kept_though_it_is_killed_after_each_change(
    tenant: Tenant, elsewhere: Tenant, process: OperatorProcess, gate: Gate
) -> None:
    process.change_policy(concurrency={"cluster": 1})
    process.start()
    slow = inline(f"FROM busybox:1.36\nRUN {gate.wait()}\n")
    with (
        watch.recording(tenant.target, RESOURCE, "--all-namespaces") as builds,
        watch.recording(tenant.target, "pods", "--all-namespaces", "-l", "multiarch.build/role") as pods,
    ):
        first = tenant.build("first", source=slow, platforms=[AMD64])
        first.started()
        waiting = []
        for number, place in enumerate((elsewhere, tenant, tenant, elsewhere)):
            build = place.build(f"waits-{number}", source=inline(), platforms=[AMD64])
            build.until(lambda status: condition(status, "Ready").get("reason") == "Queued", why="it waits")
            waiting.append(build)
        process.kill()
        queue = [build.get() for build in waiting]
        assert "result" not in first.status["run"], "the first one was not done when all others waited"
        gate.open()
        process.module = "tests.faults.mortal"
        lives = 0
        while not all("result" in build.status.get("run", {}) for build in (first, *waiting)):
            process.start()
            assert process.wait(watch.PATIENCE) == -signal.SIGKILL
            lives += 1
        for build in (first, *waiting):
            build.succeeded()
    # A builder may end while no operator lives: its start and its end are then one write of the status.
    assert lives >= 4 * 4, "a ConfigMap, a builder, the publish step and the end, four times"
    own = [first.get()["metadata"]["uid"], *(entry["metadata"]["uid"] for entry in sorted(queue, key=waits_since))]
    assert starts(builds, own) == own
    assert_never_two(pods, own)


def waits_since(build: dict[str, Any]) -> tuple[str, ...]:
    """Return what orders those who wait: how long, in seconds, so that names have to tell two builds apart."""
    meta = build["metadata"]
    since = condition(build["status"], "Ready")["lastTransitionTime"]
    return since, meta["creationTimestamp"], meta["namespace"], meta["uid"]


def starts(builds: watch.Recorder, own: list[str]) -> list[str]:
    """Return the builds (uids of `own`) in the order in which they started; there was never a second one."""
    order: list[str] = []
    running: set[str] = set()
    for change in builds.changes:
        uid, run = change.object["metadata"]["uid"], change.object.get("status", {}).get("run")
        if uid not in own or run is None:
            continue
        if uid not in order:
            order.append(uid)
        running = running - {uid} if "result" in run else running | {uid}
        assert len(running) <= 1, running
    return order


def assert_never_two(pods: watch.Recorder, own: list[str]) -> None:
    """When a pod of a build came, those of all other builds had ended."""
    last: dict[str, dict[str, Any]] = {}
    for change in pods.changes:
        meta = change.object["metadata"]
        build = meta["labels"]["multiarch.build/build-uid"]
        if build not in own:
            continue
        if meta["uid"] not in last:
            others = [pod for pod in last.values() if pod["metadata"]["labels"]["multiarch.build/build-uid"] != build]
            assert all(map(has_ended, others)), [pod["metadata"]["name"] for pod in others]
        last[meta["uid"]] = change.object
    assert len({pod["metadata"]["labels"]["multiarch.build/build-uid"] for pod in last.values()}) == len(own)


def assert_one_run(build: Build, status: Status, pods: watch.Recorder) -> None:
    """Of each platform and attempt one pod was started, and there is one run with one digest."""
    assert [entry["digest"] for entry in status["history"]] == [status["image"]["digest"]]
    assert {entry["attempt"] for entry in status["run"]["platforms"]} == {1}
    assert [entry["platform"] for entry in status["run"]["platforms"]] == BOTH
    built = [
        pod["metadata"]["annotations"]["multiarch.build/platforms"]
        for pod in pods.seen.values()
        if pod["metadata"]["labels"]["multiarch.build/role"] == "build"
    ]
    assert sorted(built) == [AMD64, ARM64]
    assert len(pods.seen) == 3, pods.named()
    assert {pod["metadata"]["labels"]["multiarch.build/attempt"] for pod in pods.seen.values()} == {"1"}
    reasons = [(event["reason"], event["note"]) for event in build.events()]
    assert len(reasons) == len(set(reasons)), "what happened once is told once"


def assert_nothing_orphaned(tenant: Tenant, build: Build) -> None:
    """Everything belongs to the build, and goes with it."""
    uid = build.get()["metadata"]["uid"]
    selector = f"multiarch.build/build-uid={uid}"
    for kind in ("pods", "configmaps"):
        children = tenant.list(kind, "app.kubernetes.io/managed-by=multiarchbuild")
        assert children
        assert all([owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [uid] for child in children)
    build.delete()
    for kind in ("pods", "configmaps"):
        watch.gone(tenant.target, kind, "-n", tenant.namespace, "-l", selector)
