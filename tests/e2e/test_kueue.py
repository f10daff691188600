"""Builders in a queue of Kueue: its own manager admits them, takes them away, and lets the next one go."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hack.target import Target
from tests.support import kueue, watch
from tests.support.gate import Gate
from tests.support.queued import entry, is_published, is_queued
from tests.support.tenant import AMD64, ARM64, BOTH, Build, Status, Tenant, await_idle, inline, platform

# One Kueue for all of them: there can be one in a cluster, and it takes a while to start.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("kueue")]

QUEUE = "builds"
COVERED = {"cpu": "100", "memory": "1Ti", "ephemeral-storage": "10Ti", "pods": "1"}
"""What there is of all that builders may request: room for one pod, whatever it requests."""


@pytest.fixture(scope="module")
def manager(target: Target) -> Iterator[None]:
    """Kueue at work."""
    with kueue.running(target):
        yield


@dataclass(frozen=True)
class Queue:
    """The queue of one namespace."""

    tenant: Tenant

    @property
    def name(self) -> str:
        """The name of what the whole cluster has of it."""
        return self.tenant.namespace

    def open(self, **flavors: dict[str, str]) -> None:
        """Make it, with room for one pod on the nodes of each flavor, which have the labels that it is given."""
        resources = [{"name": each, "nominalQuota": amount} for each, amount in COVERED.items()]
        quotas = [{"name": f"{self.name}-{flavor}", "resources": resources} for flavor in flavors]
        spec = {
            "namespaceSelector": {},
            "resourceGroups": [{"coveredResources": [*COVERED], "flavors": quotas}],
            "preemption": {"withinClusterQueue": "LowerPriority"},
        }
        objects = [
            *(
                manifest("ResourceFlavor", f"{self.name}-{each}", spec={"nodeLabels": flavors[each]})
                for each in flavors
            ),
            manifest("ClusterQueue", self.name, spec=spec),
            manifest("WorkloadPriorityClass", self.name, value=1000),
            manifest("LocalQueue", QUEUE, spec={"clusterQueue": self.name}),
        ]
        self.tenant.apply({"apiVersion": "v1", "kind": "List", "items": objects})

    def build(self, name: str, source: dict[str, Any], priority: str = "", **spec: Any) -> Build:
        """Make a build whose builders are in it."""
        labels = {"kueue.x-k8s.io/queue-name": QUEUE}
        if priority:
            labels["kueue.x-k8s.io/priority-class"] = priority
        scheduling = {"podMetadata": {"labels": labels}, **spec.pop("scheduling", {})}
        spec = {"platforms": [AMD64], "output": {"image": self.tenant.image(name)}, **spec}
        return self.tenant.build(name, source=source, scheduling=scheduling, **spec)

    def workload(self, pod: str) -> dict[str, Any]:
        """Return what Kueue has made of a pod."""
        found = self.tenant.list("workloads.kueue.x-k8s.io")
        return next(each for each in found if each["metadata"]["ownerReferences"][0]["name"] == pod)


def manifest(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    """Return an object of Kueue."""
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, **fields}


@pytest.fixture
def queue(tenant: Tenant, manager: None) -> Iterator[Queue]:
    """The queue of the namespace, which no build of it outlives: Kueue has to let go of each pod."""
    del manager
    name, target = tenant.namespace, tenant.target
    kueue.await_ready(target)
    target.kubectl("label", "namespace", name, *(f"{key}={value}" for key, value in kueue.MANAGED.items()))
    yield Queue(tenant)
    tenant.kubectl("delete", "multiarchbuilds", "--all")
    for kind in ("pods", "workloads.kueue.x-k8s.io"):
        watch.gone(target, kind, "--all", "-n", name)


def slow(gate: Gate, leaf: str = "open") -> dict[str, Any]:
    """Return a source whose build lasts until the gate is opened."""
    return inline(f"FROM busybox:1.36\nRUN {gate.wait(leaf)}; uname -m > /machine\n")


def builds(status: Status) -> bool:
    """Return whether each platform is being built, or more."""
    return {each["phase"] for each in status.get("run", {}).get("platforms", ())} == {"Running"}


def test_the_second_build_waits_until_the_first_one_has_made_room(tenant: Tenant, queue: Queue, gate: Gate) -> None:
    queue.open(any={})
    first = queue.build("first", slow(gate))
    first.until(builds)
    second = queue.build("second", slow(gate))
    waiting = is_queued(tenant, second, kueue.GATES)
    conditions = queue.workload(entry(waiting)["pod"])["status"]["conditions"]
    (said,) = (each["message"] for each in conditions if each["type"] == "QuotaReserved")
    assert "insufficient unused quota for pods" in said
    gate.open()
    left, done = first.succeeded(), second.succeeded()
    assert entry(left)["finishedAt"] <= entry(done)["startedAt"]
    assert (entry(done)["attempt"], entry(done)["pod"]) == (1, entry(waiting)["pod"])
    is_published(tenant, left, "first")
    is_published(tenant, done, "second")


def test_a_builder_makes_room_for_one_of_more_priority_and_is_queued_anew(
    tenant: Tenant, queue: Queue, gate: Gate
) -> None:
    queue.open(any={})
    low = queue.build("low", slow(gate, "low"))
    low.until(builds)
    high = queue.build("high", slow(gate, "high"), priority=queue.name)
    low.until(lambda status: entry(status).get("attempt") == 2)
    waiting = is_queued(tenant, low, kueue.GATES)
    (lost,) = entry(waiting)["failedAttempts"]
    assert lost["reason"] == "BuilderEvicted"
    assert "was evicted: WorkloadEvictedDueToPreempted: Preempted to accommodate a workload" in lost["message"]
    high.until(builds)
    gate.open("high")
    gate.open("low")
    high.succeeded()
    done = low.succeeded()
    assert entry(done)["attempt"] == 2
    is_published(tenant, done, "low")


def test_a_builder_whose_workload_is_deactivated_is_followed_by_another(
    tenant: Tenant, queue: Queue, gate: Gate
) -> None:
    queue.open(any={})
    build = queue.build("app", slow(gate))
    workload = queue.workload(entry(build.until(builds))["pod"])["metadata"]["name"]
    tenant.kubectl("patch", "workloads.kueue.x-k8s.io", workload, "--type=merge", "-p", '{"spec": {"active": false}}')
    build.until(lambda status: entry(status).get("attempt") == 2)
    gate.open()
    done = build.succeeded()
    (lost,) = entry(done)["failedAttempts"]
    assert lost["reason"] == "BuilderEvicted"
    assert "was evicted: WorkloadEvictedDueToDeactivated: The workload is deactivated" in lost["message"]
    is_published(tenant, done)


def test_platforms_are_built_one_after_the_other_where_there_is_room_for_one(queue: Queue) -> None:
    queue.open(any={})
    done = queue.build("app", inline(), platforms=BOTH).succeeded()
    earlier, later = sorted(done["run"]["platforms"], key=lambda each: str(each["startedAt"]))
    assert earlier["finishedAt"] <= later["startedAt"]
    assert (earlier["attempt"], later["attempt"]) == (1, 1)


def test_each_architecture_has_a_quota_of_its_own_where_it_has_a_flavor(queue: Queue, gate: Gate) -> None:
    queue.open(amd64={"kubernetes.io/arch": "amd64"}, arm64={"kubernetes.io/arch": "arm64"})
    build = queue.build("app", slow(gate), platforms=BOTH)
    status = build.until(builds)
    flavors = {each: flavor_of(queue, platform(status, each)["pod"]) for each in BOTH}
    assert flavors == {AMD64: f"{queue.name}-amd64", ARM64: f"{queue.name}-arm64"}
    gate.open()
    build.succeeded()


def flavor_of(queue: Queue, pod: str) -> str:
    """Return the flavor whose quota counts a pod."""
    (assigned,) = queue.workload(pod)["status"]["admission"]["podSetAssignments"]
    return str(assigned["flavors"]["pods"])


def test_a_kept_builder_is_left_alone_and_holds_its_share(tenant: Tenant, queue: Queue) -> None:
    queue.open(any={})
    cache = {"repository": tenant.image("cache"), "mode": "Min"}
    dockerfile = "FROM busybox:1.36\nCOPY version /\nRUN uname -m > /machine\n"
    build = queue.build("app", inline(dockerfile, version="1"), cache=cache, scheduling={"keepBuilder": "10m"})
    first = build.succeeded()
    pod = entry(first)["pod"]
    await_idle(tenant, pod)
    other = queue.build("other", inline())
    waiting = is_queued(tenant, other, kueue.GATES)
    build.patch(source=inline(dockerfile, version="2"))
    second = build.succeeded(after=first["run"]["id"])
    assert (entry(second)["pod"], entry(second)["builder"], entry(second)["attempt"]) == (pod, "Kept", 1)
    assert entry(other.status)["pod"] == entry(waiting)["pod"]
    build.delete()
    assert entry(other.succeeded())["pod"] == entry(waiting)["pod"]
