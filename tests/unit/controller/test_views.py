"""Views: never older than what was written, and never a ghost of what was deleted."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.controller.kube import CLAIMS, CONFIG_MAPS, PODS
from multiarchbuild.controller.views import SETTLED_SECONDS, TOGETHER_SECONDS, Views, patience
from multiarchbuild.controller.watch import Key
from multiarchbuild.plan.children import Pod, Role, pod_from
from multiarchbuild.plan.pod_policy import CacheVolumes
from multiarchbuild.plan.policy import Policy
from tests.unit.plan.world import GIT, World, manifest, node, timestamp

KEY = Key("team-a", "app")


class Cluster:
    """A world whose objects have versions, and the views of it."""

    def __init__(self) -> None:
        self.world = World()
        self.version = 100
        self.woken: list[tuple[Key, float]] = []
        self.views = Views(lambda key, seconds: self.woken.append((key, seconds)))
        self.world.reconcile()
        self.pod = self.versioned(next(iter(self.world.pods.values())))

    @property
    def uid(self) -> str:
        return str(self.world.resource["metadata"]["uid"])

    def versioned(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        return manifest

    def copied(self) -> dict[str, Any]:
        return copy.deepcopy(self.versioned(self.pod))

    def names(self) -> list[str]:
        return [pod.name for pod in self.views.children_of(self.uid).pods]

    def taken(self) -> list[float]:
        waits, self.woken = [seconds for _, seconds in self.woken], []
        return waits


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_what_we_created_is_there_before_the_watch_shows_it_and_wakes_nobody(cluster: Cluster) -> None:
    cluster.views.created(PODS, cluster.pod)
    assert len(cluster.names()) == 1
    shown = copy.deepcopy(cluster.pod)
    shown["status"] = {"phase": "Pending", "qosClass": "Burstable"}
    cluster.views.pod_seen("ADDED", shown)
    assert cluster.woken == []


def test_what_admission_has_made_of_it_is_seen_at_the_same_version(cluster: Cluster) -> None:
    cluster.views.created(PODS, cluster.pod)
    gated = copy.deepcopy(cluster.pod)
    gated["spec"]["schedulingGates"] = [{"name": "example.com/quota"}]
    cluster.views.pod_seen("ADDED", gated)
    assert cluster.views.children_of(cluster.uid).pods[0].gates == ("example.com/quota",)
    assert cluster.woken, "it waits for something else than was thought"


def test_an_event_that_came_before_the_answer_stays(cluster: Cluster) -> None:
    gated = copy.deepcopy(cluster.pod)
    gated["spec"]["schedulingGates"] = [{"name": "example.com/quota"}]
    cluster.views.pod_seen("ADDED", gated)
    cluster.views.created(PODS, cluster.pod)
    assert cluster.views.children_of(cluster.uid).pods[0].gates == ("example.com/quota",)


def test_an_older_event_changes_nothing(cluster: Cluster) -> None:
    before = cluster.copied()
    cluster.world.start(cluster.pod)
    cluster.views.stored(PODS, cluster.copied())
    cluster.views.pod_seen("MODIFIED", before)
    assert cluster.views.children_of(cluster.uid).pods[0].step_started_at
    assert cluster.woken == []


def test_a_create_whose_answer_comes_after_the_deletion_leaves_no_ghost(cluster: Cluster) -> None:
    answer = cluster.copied()
    cluster.views.pod_seen("ADDED", cluster.copied())
    # As a stream tells it that was interrupted: no more than what it knew.
    meta = {key: cluster.pod["metadata"][key] for key in ("name", "namespace", "uid", "ownerReferences")}
    cluster.views.pod_seen("DELETED", {"metadata": meta})
    cluster.views.stored(PODS, answer)
    assert cluster.names() == []


def test_a_pod_that_we_deleted_is_not_deleted_again_and_its_results_still_come(cluster: Cluster) -> None:
    cluster.views.stored(PODS, cluster.copied())
    cluster.views.deleted(PODS, cluster.uid, cluster.pod["metadata"]["name"], cluster.pod["metadata"]["uid"])
    assert cluster.views.children_of(cluster.uid).pods[0].deleting
    cluster.world.succeed(cluster.pod)
    cluster.views.pod_seen("MODIFIED", cluster.copied())
    assert cluster.views.children_of(cluster.uid).pods[0].ended


def test_config_maps_come_and_go(cluster: Cluster) -> None:
    made = cluster.versioned(next(iter(cluster.world.config_maps.values())))
    meta = made["metadata"]
    cluster.views.stored(CONFIG_MAPS, made)
    assert [each.name for each in cluster.views.children_of(cluster.uid).config_maps] == [meta["name"]]
    cluster.views.deleted(CONFIG_MAPS, cluster.uid, meta["name"], meta["uid"])
    assert cluster.views.children_of(cluster.uid).config_maps == ()
    again = cluster.versioned(copy.deepcopy(made))
    again["metadata"]["uid"] = "another"
    cluster.views.config_map_seen("ADDED", again)
    cluster.views.config_map_seen("DELETED", again)
    assert cluster.woken == [(KEY, 0.0)], "somebody took it away: it is missed"


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["metadata"]["labels"].update({"multiarch.build/build-uid": "another"}),
        lambda pod: pod["metadata"]["labels"].pop("multiarch.build/build-uid"),
        lambda pod: pod["metadata"].pop("ownerReferences"),
    ],
    ids=["of another", "without a label", "without an owner"],
)
def test_what_only_looks_like_a_child_is_none(cluster: Cluster, change: Any) -> None:
    change(cluster.pod)
    cluster.views.pod_seen("ADDED", cluster.pod)
    assert cluster.names() == []


def test_results_are_looked_at_at_once_and_all_else_together(cluster: Cluster) -> None:
    cluster.views.stored(PODS, cluster.copied())
    for change, expected in (
        (lambda: cluster.world.schedule(cluster.pod), [TOGETHER_SECONDS]),
        (lambda: cluster.world.start(cluster.pod), [TOGETHER_SECONDS]),
        (lambda: cluster.pod["metadata"]["annotations"].update({"example.com/seen": "1"}), []),
        (lambda: cluster.world.succeed(cluster.pod), [0.0]),
        (lambda: cluster.pod["status"].update(phase="Succeeded"), []),
        (lambda: cluster.pod["metadata"].update(deletionTimestamp=timestamp(cluster.world.now)), [0.0]),
    ):
        change()
        cluster.views.pod_seen("MODIFIED", cluster.copied())
        assert cluster.taken() == expected


def starting(role: Role, *, built: bool = False) -> dict[str, Pod]:
    """Return what is seen of a pod from its creation to the start of its step."""
    world = World(manifest(source=GIT) if role is Role.RESOLVE else manifest())
    world.settle()
    if role is Role.PUBLISH:
        world.succeed(world.pod(platform="linux/amd64"))
        (world.succeed if built else world.start)(world.pod(platform="linux/arm64"))
        world.settle()
    pod, seen = world.pod(role), {}
    seen["created"] = pod_from(pod)
    seen["unschedulable"] = replace(seen["created"], unschedulable="0/1 nodes are available")
    world.schedule(pod)
    seen["scheduled"] = pod_from(pod)
    pod["status"]["startTime"] = timestamp(world.now)
    pod["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "False"})
    seen["acknowledged"] = pod_from(pod)
    seen["waiting"] = replace(seen["acknowledged"], waiting_reason="ErrImagePull")
    pod["status"]["conditions"][-1]["status"] = "True"
    seen["with its sandbox"] = pod_from(pod)
    world.start(pod)
    seen["started"] = pod_from(pod)
    return seen


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        ("created", "scheduled", {Role.BUILD}),
        ("scheduled", "acknowledged", set()),
        ("acknowledged", "with its sandbox", set()),
        ("with its sandbox", "started", {Role.BUILD, Role.RESOLVE}),
        ("created", "unschedulable", {Role.BUILD, Role.RESOLVE, Role.PUBLISH}),
        ("unschedulable", "scheduled", {Role.BUILD, Role.RESOLVE, Role.PUBLISH}),
        ("acknowledged", "waiting", {Role.BUILD, Role.RESOLVE, Role.PUBLISH}),
        ("waiting", "started", {Role.BUILD, Role.RESOLVE, Role.PUBLISH}),
    ],
)
def test_that_a_pod_comes_nearer_to_its_start_is_news_where_status_tells_it(
    before: str, now: str, news: set[Role]
) -> None:
    for role in (Role.BUILD, Role.RESOLVE, Role.PUBLISH):
        seen = starting(role)
        expected = TOGETHER_SECONDS if role in news else None
        assert patience(seen[before], seen[now]) == expected, role


def test_a_publish_step_that_knows_what_was_built_is_followed_from_its_start() -> None:
    seen = starting(Role.PUBLISH, built=True)
    assert seen["created"].built_annotation
    assert patience(seen["acknowledged"], seen["started"]) == TOGETHER_SECONDS


@pytest.mark.parametrize(("exit_code", "expected"), [(0, SETTLED_SECONDS), (1, 0.0)])
def test_the_end_of_a_step_that_has_told_its_success_is_no_news(exit_code: int, expected: float) -> None:
    cluster = Cluster()
    told = {cluster.pod["metadata"]["uid"]}
    cluster.views = Views(lambda key, seconds: cluster.woken.append((key, seconds)), told.__contains__)
    cluster.world.start(cluster.pod)
    cluster.views.stored(PODS, cluster.copied())
    cluster.world.end(cluster.pod, "", exit_code)
    cluster.views.pod_seen("MODIFIED", cluster.copied())
    assert cluster.taken() == [expected], "what it says against it is looked at at once"
    cluster.pod["metadata"].update(deletionTimestamp=timestamp(cluster.world.now))
    cluster.views.pod_seen("MODIFIED", cluster.copied())
    assert cluster.taken() == [0.0]


@given(st.permutations(range(6)))
def test_whatever_order_events_and_answers_come_in_the_newest_wins(order: list[int]) -> None:
    cluster = Cluster()
    states = []
    for step in range(6):
        cluster.pod["metadata"]["annotations"]["multiarch.build/source"] = str(step)
        states.append(cluster.copied())
    for number in order:
        if number % 2:
            cluster.views.pod_seen("MODIFIED", states[number])
        else:
            cluster.views.stored(PODS, states[number])
    assert [pod.source_annotation for pod in cluster.views.children_of(cluster.uid).pods] == ["5"]


def test_what_ends_a_pod_is_urgent() -> None:
    world = World()
    world.reconcile()
    pod = world.pod(Role.BUILD)
    before = pod_from(pod)
    world.evict(pod)
    assert patience(before, pod_from(pod)) == 0.0


def test_nodes_are_news_only_where_placement_sees_them() -> None:
    views = Views(lambda _key, _seconds: None)
    manifest: dict[str, Any] = {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": node("amd64").labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert views.node_seen("ADDED", manifest)
    manifest["metadata"]["resourceVersion"] = "2"
    assert not views.node_seen("MODIFIED", manifest)
    manifest["metadata"]["resourceVersion"] = "3"
    manifest["status"]["conditions"][0]["status"] = "False"
    assert views.node_seen("MODIFIED", manifest)
    assert [each.ready for each in views.nodes.all] == [False]
    assert views.node_seen("DELETED", manifest)
    assert not views.node_seen("DELETED", manifest)
    assert views.nodes.all == ()


def test_claims_are_seen_like_other_children(cluster: Cluster) -> None:
    cluster.world.policy = Policy(cache_volumes=CacheVolumes(max_size="1Gi"))
    cluster.world.edit(cache={"volume": {"size": "1Gi"}})
    cluster.world.reconcile()
    claim = cluster.versioned(next(iter(cluster.world.claims.values())))
    name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]

    def known() -> list[tuple[bool, bool]]:
        return [(each.bound, each.deleting) for each in cluster.views.children_of(cluster.uid).claims]

    cluster.views.stored(CLAIMS, claim)
    assert known() == [(False, False)]
    cluster.views.claim_seen("ADDED", claim)
    bound = cluster.versioned({**claim, "status": {"phase": "Bound"}, "metadata": dict(claim["metadata"])})
    cluster.views.claim_seen("MODIFIED", bound)
    assert known() == [(True, False)]
    assert cluster.taken() == [], "its pod is seen to start"
    lost = cluster.versioned({**bound, "status": {"phase": "Lost"}, "metadata": dict(bound["metadata"])})
    cluster.views.claim_seen("MODIFIED", lost)
    assert cluster.taken() == [TOGETHER_SECONDS]
    cluster.views.deleted(CLAIMS, cluster.uid, name, uid)
    assert known() == [(False, True)], "it goes when no pod has it"
    cluster.views.claim_seen("DELETED", lost)
    assert known() == []
    assert cluster.taken() == [0.0]


def test_a_claim_of_others_is_not(cluster: Cluster) -> None:
    meta = {"name": "db", "namespace": "team-a", "uid": "u", "resourceVersion": "1"}
    cluster.views.claim_seen("ADDED", {"metadata": meta})
    assert cluster.views.children_of(cluster.uid).claims == ()
