"""Builders that wait for work: how many may, and that they give way."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from multiarchbuild.controller.apply import Applier, Rejected
from multiarchbuild.controller.kept import MOST_GIVEN, KeptBounds
from multiarchbuild.controller.kube import Forbidden, Kube, Transient
from multiarchbuild.controller.metrics import Metrics
from multiarchbuild.controller.refused import REFUSED_SECONDS
from multiarchbuild.controller.views import Seen, Views
from multiarchbuild.controller.watch import Key
from multiarchbuild.plan.actions import Resize, StartResolve
from multiarchbuild.plan.children import Pod, pod_from
from multiarchbuild.plan.kept import surplus
from multiarchbuild.plan.policy import KeptBuilders, Policy
from multiarchbuild.pods import render
from tests.unit.controller.test_queue import Time
from tests.unit.plan.test_kept import world
from tests.unit.plan.world import START, build


def idle(name: str, namespace: str = "team-a", *, used: int = 0, **fields: Any) -> Pod:
    """Return a builder that waits for work since so many seconds after the start."""
    pod = replace(pod_from(world().pod()), name=name, uid=name, namespace=namespace, idle_after=name)
    return replace(pod, step_started_at=START + timedelta(seconds=used), **fields)


def test_where_a_quota_is_full_one_of_the_namespace_gives_way() -> None:
    pods = [idle("a1", used=1), idle("b1", "team-b", used=2), idle("b2", "team-b", used=3)]
    assert surplus(pods, KeptBuilders(), short=False, full={"team-b": 1}) == (pods[1],)
    assert surplus(pods, KeptBuilders(), short=False, full={"team-b": 2}) == (pods[1], pods[2])
    leaving = replace(pods[1], deleting=True)
    assert surplus([pods[0], leaving, pods[2]], KeptBuilders(), short=False, full={"team-b": 1}) == ()


@pytest.mark.parametrize(
    ("limits", "short", "gone"),
    [
        (KeptBuilders(), False, ()),
        (KeptBuilders(per_namespace=1), False, ("a1", "a2")),
        (KeptBuilders(per_cluster=2), False, ("b1", "a1")),
        (KeptBuilders(per_cluster=0), False, ("b1", "a1", "a2", "a3")),
        (KeptBuilders(), True, ("b1",)),
        (KeptBuilders(per_cluster=3), True, ("b1",)),
    ],
)
def test_the_least_recently_used_goes_first(limits: KeptBuilders, *, short: bool, gone: tuple[str, ...]) -> None:
    pods = [idle("a2", used=2), idle("b1", "team-b", used=0), idle("a3", used=3), idle("a1", used=1)]
    assert tuple(pod.name for pod in surplus(pods, limits, short=short)) == gone


def test_one_of_the_namespace_of_the_pod_that_finds_no_room_goes_first() -> None:
    pods = [idle("a1", used=1), idle("b1", "team-b", used=2), idle("b2", "team-b", used=3)]
    assert surplus(pods, KeptBuilders(), short=True, near={"team-b"}) == (pods[1],)
    assert surplus(pods, KeptBuilders(), short=True, near={"team-c"}) == (pods[0],)


def test_the_next_one_gives_way_when_the_one_before_has_gone() -> None:
    pods = [idle("a1", used=1, deleting=True), idle("a2", used=2), idle("a3", used=3)]
    assert surplus(pods, KeptBuilders(), short=True) == ()
    assert surplus(pods[1:], KeptBuilders(), short=True) == (pods[1],)


def test_one_that_builds_or_has_ended_does_not_count() -> None:
    pods = [idle("a1", used=1), idle("a2", idle_after=""), idle("a3", deleting=True), idle("a4", template="")]
    assert surplus(pods, KeptBuilders(per_cluster=0), short=True) == (pods[0],)


class Deletions:
    """An API server that deletes pods, or does not answer."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.broken = False

    async def delete(self, _kind: object, _namespace: str, name: str, *, uid: str) -> None:
        if self.broken:
            raise Transient("no answer")
        assert uid == name
        self.deleted.append(name)


def seen(*pods: Pod, owner: str = "owner") -> Views:
    views = Views(lambda *_: None)
    for pod in pods:
        views.pods.store(owner, pod.name, Seen(pod.uid, 1, pod))
    return views


async def test_a_builder_gives_way_to_a_pod_that_finds_no_room() -> None:
    waiting = idle("new", used=9, idle_after="", template="", node=None)
    message = "0/2 nodes are available: 2 Insufficient cpu."
    views = seen(idle("a1", used=1), idle("a2", used=2), replace(waiting, unschedulable=message))
    server = Deletions()
    bounds = KeptBounds(cast("Kube", server), views, KeptBuilders())
    assert await bounds.enforce()
    assert server.deleted == ["a1"]
    assert [pod.name for _, pod in views.pods.all() if pod.deleting] == ["a1"]


async def test_one_pod_that_finds_no_room_whatever_goes_takes_not_all_of_them() -> None:
    waiting = idle("new", used=9, idle_after="", template="", node=None, unschedulable="2 Insufficient cpu.")
    views, server = seen(*(idle(f"a{number}") for number in range(9)), waiting), Deletions()
    bounds = KeptBounds(cast("Kube", server), views, KeptBuilders())
    for number in range(9):
        await bounds.enforce()
        for name in server.deleted:
            views.pods.remove("owner", name, name)
        assert len(server.deleted) == min(number + 1, MOST_GIVEN)


@pytest.mark.parametrize("lacks", ["2 node(s) had untolerated taints.", "2 Insufficient nvidia.com/gpu."])
async def test_where_nodes_lack_something_else_none_gives_way(lacks: str) -> None:
    waiting = idle("new", used=9, idle_after="", template="", node=None)
    views = seen(idle("a1"), replace(waiting, unschedulable=f"0/2 nodes are available: {lacks}"))
    server = Deletions()
    await KeptBounds(cast("Kube", server), views, KeptBuilders()).enforce()
    assert server.deleted == []


async def test_what_was_not_deleted_can_be_used_and_is_tried_again() -> None:
    views, server = seen(idle("a1")), Deletions()
    bounds = KeptBounds(cast("Kube", server), views, KeptBuilders(per_cluster=0))
    server.broken = True
    assert not await bounds.enforce()
    assert not any(pod.deleting for _, pod in views.pods.all())
    server.broken = False
    assert await bounds.enforce()
    assert server.deleted == ["a1"]


class Full:
    """An API server where a quota has no room."""

    asked = 0

    async def create(self, *_: object) -> None:
        self.asked += 1
        raise Forbidden('pods "app" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3')


async def test_a_refusal_by_quota_lets_a_builder_of_the_namespace_go() -> None:
    views, server = seen(idle("a1", used=1), idle("b1", "team-b", used=0)), Deletions()
    applier = Applier(cast("Kube", Full()), render, Policy(), views, "operator", lambda: 0.0)
    with pytest.raises(Rejected):
        await applier.perform(build(), StartResolve("app", "1", 1, "inputs", 60))
    bounds = KeptBounds(cast("Kube", server), views, KeptBuilders())
    assert await bounds.enforce()
    assert await bounds.enforce()
    assert server.deleted == ["a1"], "one for each refusal, of the namespace that it is about"


async def test_what_a_quota_has_refused_is_asked_for_again_once_a_builder_is_gone() -> None:
    woken: list[Key] = []
    manifest = {**world().pod(), "kind": "Pod"}
    views = Views(lambda key, _: woken.append(key))
    manifest["metadata"]["resourceVersion"] = "1"
    views.pod_seen("ADDED", manifest)
    applier = Applier(cast("Kube", full := Full()), render, Policy(), views, "operator", lambda: 0.0)
    action = StartResolve("app", "1", 1, "inputs", 60)
    for _ in range(2):
        with pytest.raises(Rejected):
            await applier.perform(build(name="other"), action)
    assert full.asked == 1
    woken.clear()
    views.pod_seen("DELETED", manifest)
    assert Key("team-a", "other") in woken
    with pytest.raises(Rejected):
        await applier.perform(build(name="other"), action)
    assert full.asked == 2


class Resizes:
    """An API server that lets nobody change what pods request."""

    def __init__(self, why: str = "no") -> None:
        self.asked: list[str] = []
        self.why = why

    async def resize(self, _namespace: str, name: str, *, uid: str, requests: object) -> None:
        self.asked.append(name)
        raise Forbidden(f"pods {name} ({uid}) is forbidden: {self.why} {requests}")


async def test_a_cluster_that_resizes_nothing_is_asked_once_for_each_builder_and_told_of_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, known = Resizes(), build()
    views = seen(idle("a1"), idle("a2"), idle("a3", full_requests=""), owner=known.metadata.uid)
    applier = Applier(cast("Kube", server), render, Policy(), views, "operator", lambda: 0.0)
    for name in ("a1", "a1", "a2", "a3"):
        await applier.perform(known, Resize(name, name, (("step", "5m", "32Mi"),), lowers=True))
    assert server.asked == ["a1", "a2"], "what a3 requests while it builds is not noted"
    assert capsys.readouterr().out.count("keep their requests") == 1


async def test_requests_that_are_not_given_back_are_asked_for_again_in_a_minute_and_make_another_give_way() -> None:
    server, time, views = Resizes("exceeded quota: q"), Time(), seen(idle("a1"))
    applier = Applier(cast("Kube", server), render, Policy(), views, "operator", lambda: time.now)
    action = Resize("b1", "b1", (("step", "2", "4Gi"),))
    for _ in range(2):
        await applier.perform(build(), action)
    assert server.asked == ["b1"]
    assert "team-a" in views.full
    time.move(REFUSED_SECONDS)
    await applier.perform(build(), action)
    assert server.asked == ["b1", "b1"]


def test_metrics_tell_how_many_there_are() -> None:
    metrics = Metrics()
    metrics.count_kept(lambda: [idle("a1"), idle("a2", idle_after=""), idle("a3", template="")])
    found = [metrics.registry.get_sample_value("mab_kept_builders", {"state": each}) for each in ("idle", "building")]
    assert found == [1, 1]
