"""Volumes that outlive builders: who gets which, what happens where one can't be had, and when they go."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import CacheVolumeUse, Phase, PlatformStatus, Result
from multiarchbuild.plan import claims
from multiarchbuild.plan.actions import DeleteClaim, EnsureClaim, StartBuild
from multiarchbuild.plan.children import Pod, Role, claim_from, pod_from
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.not_created import NotCreated
from multiarchbuild.plan.outcome import outcome
from multiarchbuild.plan.pod_policy import AccessMode, CacheVolumes
from multiarchbuild.plan.policy import Isolation, KeptBuilders, Policy
from tests.unit.plan.test_kept import ran
from tests.unit.plan.world import BOTH, GIT, World, build, manifest, node, timestamp

AMD64, ARM64 = "linux/amd64", "linux/arm64"
VOLUME = {"volume": {"size": "10Gi"}}
ALLOWED = CacheVolumes(max_size="50Gi", storage_classes=("fast",))
POLICY = Policy(cache_volumes=ALLOWED)
CONFLICT = "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."


def world(policy: Policy = POLICY, **fields: Any) -> World:
    """Return a cluster with a build that has asked for a volume, and has been looked at once."""
    found = World(manifest(**{"platforms": [AMD64], "cache": VOLUME, **fields}), policy=policy)
    found.reconcile()
    return found


def kept(**fields: Any) -> World:
    """Return one whose builder has stayed after the first run."""
    found = world(POLICY.model_copy(update={"kept_builders": KeptBuilders(default="10m")}), **fields)
    ran(found)
    return found


def entry(found: World, platform: str = AMD64) -> PlatformStatus:
    assert found.status.run is not None
    return next(each for each in found.status.run.platforms if each.platform == platform)


def newest(found: World) -> Pod:
    """Return the newest builder."""
    return pod_from(found.pod())


def edited(found: World, **fields: Any) -> Decision:
    found.advance(60)
    found.edit(**(fields or {"build": {"args": {"A": "2"}}}))
    return found.reconcile()


def starts(decision: Decision) -> list[StartBuild]:
    return [action for action in decision.before if isinstance(action, StartBuild)]


def unschedulable(found: World, message: str = CONFLICT) -> None:
    """Let the scheduler say why the newest pod gets no node."""
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found.pod()["status"]["conditions"] = [why]


# Who gets which


def test_each_platform_has_a_volume_of_its_own_and_the_next_run_finds_it() -> None:
    found = world(platforms=[AMD64, ARM64])
    assert len(found.claims) == 2
    assert {pod_from(pod).claim for pod in found.pods.values()} == set(found.claims)
    assert entry(found).volume is CacheVolumeUse.NEW
    made = next(iter(found.claims.values()))
    assert made["spec"] == {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}}
    ran(found)
    before = set(found.claims)
    for pod in found.pods.values():
        if not pod_from(pod).ended:
            found.succeed(pod)
    found.settle()
    edited(found)
    assert set(found.claims) == before
    assert newest(found).claim in before
    assert entry(found).volume is CacheVolumeUse.USED


def test_without_the_option_there_is_nothing_of_it() -> None:
    found = world(cache={})
    assert found.claims == {}
    assert entry(found).volume is None
    pod = newest(found)
    assert (pod.claim, pod.volume) == ("", None)


def test_a_platform_that_is_built_in_another_way_has_another_volume() -> None:
    found = World(manifest(platforms=[ARM64], cache=VOLUME), policy=POLICY, nodes=(node("amd64"),))
    found.reconcile()
    native = newest(found).claim
    found.advance(121)
    found.reconcile()
    assert newest(found).claim not in {"", native}, "nodes for QEMU may be where the volume is not"


def test_builders_of_other_platforms_have_other_volumes_at_once() -> None:
    found = world(platforms=[AMD64, ARM64], scheduling={"strategy": "Cross"})
    before = newest(found)
    found.start(found.pod())
    decision = edited(found, platforms=[AMD64, "linux/386"])
    (start,) = starts(decision)
    assert start.claim not in {"", before.claim}
    assert set(found.claims) == {start.claim}
    again = found.decide()
    assert (again.before, again.after) == ((), ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"size": "10Gi"}, {"size": "11Gi"}),
        ({"size": "10Gi"}, {"size": "10Gi", "storageClassName": "fast"}),
    ],
)
def test_another_size_or_class_is_another_volume(before: dict[str, str], after: dict[str, str]) -> None:
    one, other = (claims.request(build(cache={"volume": volume}), POLICY) for volume in (before, after))
    assert one is not None
    assert other is not None
    assert one.asked != other.asked


@pytest.mark.parametrize(
    "change",
    [
        {"isolation": Isolation.USER_NAMESPACE},
        {"cache_volumes": ALLOWED.model_copy(update={"access_mode": AccessMode.ONE_NODE})},
        {"cache_volumes": ALLOWED.model_copy(update={"default_storage_class": "fast"})},
    ],
)
def test_what_the_policy_says_of_it_too(change: dict[str, Any]) -> None:
    one = claims.request(build(cache=VOLUME), POLICY)
    other = claims.request(build(cache=VOLUME), POLICY.model_copy(update=change))
    assert one is not None
    assert other is not None
    assert one.asked != other.asked


@pytest.mark.parametrize(
    ("own", "usual", "expected"), [(None, "", ""), (None, "slow", "slow"), ("fast", "slow", "fast")]
)
def test_the_class_is_that_of_the_build_or_of_the_policy_or_of_the_cluster(
    own: str | None, usual: str, expected: str
) -> None:
    policy = Policy(cache_volumes=ALLOWED.model_copy(update={"default_storage_class": usual}))
    volume = {"size": "1Gi", **({"storageClassName": own} if own else {})}
    found = World(manifest(platforms=[AMD64], cache={"volume": volume}), policy=policy)
    found.reconcile()
    (claim,) = found.claims.values()
    assert claim["spec"].get("storageClassName", "") == expected


# Never two at a time


def test_the_builder_that_has_stayed_goes_before_another_gets_its_volume() -> None:
    found = kept()
    holder = newest(found)
    assert holder.idle
    found.advance(60)
    found.edit(scheduling={"resources": {"limits": {"memory": "3Gi"}}}, build={"args": {"A": "2"}})
    decision = found.decide()
    assert starts(decision) == []
    waits = next(iter(decision.status.run.platforms)) if decision.status.run else None
    assert waits is not None
    assert waits.message == f"waiting until pod {holder.name} has ended, which has the volume of the cache"
    assert (waits.phase, waits.attempt) == (Phase.PENDING, 0)
    found.reconcile()
    assert holder.name not in found.pods
    (start,) = starts(found.reconcile())
    assert start.claim == holder.claim
    assert entry(found).volume is CacheVolumeUse.USED


def test_it_is_handed_on_with_the_builder() -> None:
    found = kept()
    pod = newest(found)
    edited(found)
    assert entry(found).pod == pod.name
    assert entry(found).volume is CacheVolumeUse.USED


def test_one_that_does_not_end_keeps_its_volume_and_the_run_goes_on_without() -> None:
    found = world()
    holder = found.pod()
    found.start(holder)
    edited(found)
    assert entry(found).attempt == 0, "it waits"
    # Its node does not answer: deleted it was, and gone it is not.
    holder["metadata"]["deletionTimestamp"] = timestamp(found.now)
    found.pods[holder["metadata"]["name"]] = holder
    found.reconcile()
    assert entry(found).attempt == 0
    found.now += claims.RELEASE
    found.reconcile()
    assert entry(found).volume is CacheVolumeUse.IN_USE
    assert newest(found).claim == ""
    assert newest(found).name.startswith(f"app-{found.status.run.id if found.status.run else ''}")
    assert len(found.claims) == 1, "it is not broken, and stays"


def test_one_that_is_made_again_waits_for_the_pod_that_has_waited_for_the_one_before() -> None:
    found = world()
    before = newest(found)
    found.claims.clear()
    decision = edited(found)
    assert [each for each in decision.before if isinstance(each, EnsureClaim | StartBuild)] == []
    assert before.name not in found.pods
    (start,) = starts(found.reconcile())
    assert (start.claim, start.volume) == (before.claim, CacheVolumeUse.NEW)
    assert set(found.claims) == {start.claim}


def test_one_that_waits_names_no_pod_that_is_not_there() -> None:
    found = kept()
    found.advance(60)
    found.edit(scheduling={"resources": {"limits": {"memory": "3Gi"}}}, build={"args": {"A": "2"}})
    decision = found.decide()
    assert decision.status.run is not None
    assert [each.pod for each in decision.status.run.platforms] == [None], "others may have the name that it will have"


def test_the_next_try_waits_for_the_pod_of_the_last() -> None:
    found = world()
    pod = found.pod()
    found.fail(pod, Reason.REGISTRY_ERROR)
    pod["status"]["phase"] = "Running"  # a sidecar has not ended yet
    found.reconcile()
    found.advance(5)
    assert starts(found.reconcile()) == []
    assert entry(found).reason is Reason.RETRYING
    assert "has the volume of the cache" in (entry(found).message or "")
    pod["status"]["phase"] = "Failed"
    (start,) = starts(found.reconcile())
    assert (start.attempt, start.claim) == (2, pod_from(pod).claim)


# What goes wrong


def test_a_volume_that_no_node_can_mount_is_given_up_when_native_wait_is_over() -> None:
    found = world()
    first = newest(found)
    unschedulable(found)
    decision = found.reconcile()
    assert entry(found).reason is Reason.UNSCHEDULABLE
    assert decision.wake_after is not None
    assert decision.wake_after <= timedelta(minutes=2)
    found.advance(121)
    decision = found.reconcile()
    (start,) = starts(decision)
    assert (start.attempt, start.claim, start.volume) == (1, "", CacheVolumeUse.UNAVAILABLE)
    assert start.name != first.name
    assert "CacheVolumeNotUsed" in {event.reason for event in decision.events}
    assert found.claims == {}, "the next run gets another"
    assert first.name not in found.pods
    found.succeed_all(*{pod_from(pod).role for pod in found.pods.values()})
    for _ in range(3):
        found.reconcile()
        found.succeed_all(*{pod_from(pod).role for pod in found.pods.values()})
    assert found.status.run is not None
    assert found.status.run.result is Result.SUCCEEDED
    edited(found)
    assert entry(found).volume is CacheVolumeUse.NEW


@pytest.mark.parametrize(
    ("message", "bound", "given_up"),
    [
        (CONFLICT, True, True),
        ("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", True, True),
        ("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.", False, True),
        ("pod has unbound immediate PersistentVolumeClaims.", False, True),
        ('storageclass.storage.k8s.io "fats" not found', False, True),
        ("0/2 nodes are available: 2 node(s) did not have enough free storage.", False, True),
        ('0/2 nodes are available: persistentvolumeclaim "x" bound to non-existent persistentvolume "y".', True, True),
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) exceed max volume count.", True, True),
        ("0/2 nodes are available: 2 Insufficient cpu.", False, False),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }.", True, False),
        ("", False, True),
        ("", True, False),
    ],
)
def test_only_what_is_the_volumes_fault_is(message: str, *, bound: bool, given_up: bool) -> None:
    found = world()
    if bound:
        found.bind(next(iter(found.claims.values())))
    if message:
        unschedulable(found, message)
    found.reconcile()
    found.advance(121)
    found.reconcile()
    assert (entry(found).volume is CacheVolumeUse.UNAVAILABLE) is given_up


def test_where_no_node_fits_anyway_it_is_not_the_volumes_fault() -> None:
    found = world(scheduling={"strategy": "Native"})
    unschedulable(found)
    found.nodes = ()
    found.advance(121)
    found.reconcile()
    assert entry(found).reason is Reason.NO_BUILDER
    assert entry(found).volume is CacheVolumeUse.NEW


def test_a_volume_gets_a_minute_to_be_made_where_native_nodes_are_not_waited_for() -> None:
    found = world(scheduling={"nativeWait": "0s"})
    found.advance(59)
    found.reconcile()
    assert entry(found).volume is CacheVolumeUse.NEW
    found.advance(1)
    found.reconcile()
    assert entry(found).volume is CacheVolumeUse.UNAVAILABLE


def test_a_buildkitd_that_does_not_start_with_it_costs_one_try_and_no_run() -> None:
    found = world(retries=0)
    pod = found.pod()
    found.fail(pod, Reason.CACHE_VOLUME_FAILED, "buildkitd did not start")
    found.reconcile()
    assert entry(found).volume is CacheVolumeUse.FAILED
    assert entry(found).failed_attempts[-1].reason is Reason.CACHE_VOLUME_FAILED
    assert found.claims == {}
    found.advance(5)
    (start,) = starts(found.reconcile())
    assert (start.attempt, start.claim, start.volume) == (2, "", CacheVolumeUse.FAILED)


def _waiting(kind: str, name: str, restarts: int, reason: str) -> dict[str, Any]:
    return {kind: [{"name": name, "restartCount": restarts, "state": {"waiting": {"reason": reason}}}]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (_waiting("initContainerStatuses", "buildkitd", 1, "CrashLoopBackOff"), Reason.CACHE_VOLUME_FAILED),
        (_waiting("containerStatuses", "mesh", 1, "CrashLoopBackOff"), None),
        (_waiting("initContainerStatuses", "buildkitd", 0, "CreateContainerError"), None),
        ({}, None),
    ],
)
def test_what_the_kubelet_says_of_it(status: dict[str, Any], reason: Reason | None) -> None:
    found = world()
    pod = found.pod()
    found.schedule(pod)
    pod["status"] |= status
    came = outcome(pod_from(pod), found.now)
    assert getattr(came, "reason", None) is reason


@pytest.mark.parametrize("isolation", [Isolation.ROOTLESS, Isolation.USER_NAMESPACE])
def test_a_volume_that_is_not_mounted_in_two_minutes_has_failed(isolation: Isolation) -> None:
    found = world(POLICY.model_copy(update={"isolation": isolation}))
    pod = found.pod()
    found.schedule(pod)
    pod["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "False"})
    pod["status"]["startTime"] = pod["metadata"]["creationTimestamp"]
    found.reconcile()
    assert entry(found).phase is Phase.PENDING
    found.advance(121)
    found.reconcile()
    assert entry(found).failed_attempts[-1].reason is Reason.CACHE_VOLUME_FAILED


@pytest.mark.parametrize("state", [{"phase": "Lost"}, {"deletionTimestamp": "2026-01-31T12:00:00Z"}])
def test_one_that_is_lost_or_goes_is_not_used(state: dict[str, str]) -> None:
    found = world()
    for pod in found.pods.values():
        found.succeed(pod)
    (claim,) = found.claims.values()
    claim["status"] = {"phase": state.get("phase", "Bound")}
    claim["metadata"] |= {key: value for key, value in state.items() if key != "phase"}
    edited(found)
    assert entry(found).volume is CacheVolumeUse.DELETED
    assert newest(found).claim == ""


def test_one_that_is_deleted_while_its_pod_waits_for_a_node_is_made_again() -> None:
    found = world()
    pod = newest(found)
    found.claims.clear()
    decision = found.reconcile()
    assert [type(action) for action in decision.before] == [EnsureClaim]
    assert set(found.claims) == {pod.claim}
    assert set(found.pods) == {pod.name}


def test_a_pod_whose_claim_is_lost_is_told_its_source_while_a_quota_refuses_its_successor() -> None:
    found = world(source=GIT)
    found.succeed_all(Role.RESOLVE)
    (claim,) = found.claims.values()
    claim["status"] = {"phase": "Lost"}
    found.full.add("Pod")
    found.reconcile()
    assert entry(found).reason is Reason.POD_REJECTED
    assert newest(found).source_annotation


def test_where_the_api_server_refuses_it_the_run_goes_on_without_and_says_why() -> None:
    found = World(manifest(platforms=[AMD64], cache=VOLUME), policy=POLICY)
    found.full.add("PersistentVolumeClaim")
    decision = found.reconcile()
    assert entry(found).volume is CacheVolumeUse.REFUSED
    assert newest(found).claim == ""
    (told,) = (event.message for event in decision.events if event.reason == "CacheVolumeNotUsed")
    assert "exceeded quota" in told


def test_a_name_that_others_have_is_left_alone() -> None:
    found = World(manifest(platforms=[AMD64], cache=VOLUME), policy=POLICY)
    wanted = next(action for action in found.decide().before if isinstance(action, EnsureClaim))
    found.foreign.add(("PersistentVolumeClaim", wanted.name))
    found.reconcile()
    assert set(found.claims) == {newest(found).claim}
    assert newest(found).claim != wanted.name
    assert found.decide().before == ()


def test_a_pod_that_waits_for_a_claim_whose_name_others_have_taken_meanwhile_goes() -> None:
    found = world()
    pod = newest(found)
    found.foreign.add(("PersistentVolumeClaim", pod.claim))
    found.claims.clear()
    found.reconcile()
    (other,) = map(pod_from, found.pods.values())
    assert other.name != pod.name, "it would mount what others have written"
    assert set(found.claims) == {other.claim}
    assert (entry(found).pod, entry(found).attempt, entry(found).volume) == (other.name, 1, CacheVolumeUse.NEW)
    again = found.decide()
    assert (again.before, again.after) == ((), ())


def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    found = World(manifest(platforms=[AMD64], cache=VOLUME), policy=POLICY)
    wanted = next(action for action in found.decide().before if isinstance(action, EnsureClaim))
    decision = found.decide_with(NotCreated(failed=frozenset({wanted.name})))
    assert starts(decision) == []


# When they go


@pytest.mark.parametrize(
    "edit",
    [
        {"cache": {}},
        {"cache": {"volume": {"size": "20Gi"}}},
        {"cache": {"volume": {"size": "10Gi", "storageClassName": "fast"}}},
        {"platforms": ["linux/386"]},
        {"scheduling": {"strategy": "Cross"}},
    ],
)
def test_what_the_spec_asks_for_no_more_goes(edit: dict[str, Any]) -> None:
    found = world(platforms=[AMD64, ARM64])
    for pod in found.pods.values():
        found.succeed(pod)
    before = set(found.claims)
    edited(found, **edit)
    found.settle()
    assert before.isdisjoint(found.claims)


def test_so_does_what_the_policy_allows_no_more() -> None:
    found = world()
    for pod in found.pods.values():
        found.succeed(pod)
    found.policy = Policy()
    found.reconcile()
    assert found.claims == {}


def test_a_builder_that_waits_goes_with_its_volume() -> None:
    found = kept()
    holder = newest(found)
    found.edit(cache={})
    found.settle()
    assert holder.name not in found.pods, "as long as it stays the volume does, and what it costs"
    found.release_claims()
    assert found.claims == {}


def test_a_volume_in_use_is_not_deleted_twice() -> None:
    found = kept()
    (claim,) = map(claim_from, found.claims.values())
    groups = [pod_from(each).platforms for each in found.pods.values() if pod_from(each).claim]
    unwanted = build(cache={})
    assert list(claims.deletions(unwanted, POLICY, [claim], groups, None)) == [DeleteClaim(claim.name, claim.uid)]
    assert list(claims.deletions(unwanted, POLICY, [replace(claim, deleting=True)], groups, None)) == []


def test_an_operator_that_was_killed_says_what_its_pod_has() -> None:
    found = World(manifest(platforms=[AMD64], cache=VOLUME), policy=POLICY, nodes=BOTH)
    found.reconcile(killed_after=3)  # the ConfigMap, the claim and the pod, but no status
    assert found.status.run is None
    found.reconcile()
    assert entry(found).volume is CacheVolumeUse.NEW
    assert len(found.pods) == len(found.claims) == 1
