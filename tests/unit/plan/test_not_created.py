"""A child that is not created delays no other, and one of others is never used."""

from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Phase, PlatformStatus, Result, RunStatus
from multiarchbuild.plan.actions import EnsureInputs, StartBuild, StartResolve
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.identity import MAX_NAME, alternatives, inputs_name
from multiarchbuild.plan.not_created import ASK_AGAIN, ASK_SOON, NotCreated, child
from tests.unit.plan.world import GIT, INLINE, POLLED, World, kstatus, manifest, node

AMD64, ARM64 = "linux/amd64", "linux/arm64"


def run_of(world: World) -> RunStatus:
    assert world.status.run is not None
    return world.status.run


def entry(world: World, platform: str) -> PlatformStatus:
    return next(entry for entry in run_of(world).platforms if entry.platform == platform)


def condition(world: World, kind: str) -> tuple[str, str]:
    return next(((each.status, each.reason) for each in world.status.conditions if each.type == kind), ("", ""))


# Refused


def test_a_quota_that_the_run_itself_fills_stops_nothing() -> None:
    world = World(manifest(source=GIT))
    world.settle()
    world.full.add("ConfigMap")  # and the run's own is what fills it
    world.succeed_all(Role.RESOLVE)
    decision = world.settle()
    assert not [action for action in decision.before if isinstance(action, EnsureInputs)]
    for role in (Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    assert run_of(world).result is Result.SUCCEEDED


def test_a_pod_that_is_refused_delays_no_other_platform() -> None:
    world = World(manifest())
    world.settle()
    world.evict(world.pod(platform=ARM64))
    world.settle()
    world.advance(5)
    world.full.add("Pod")
    world.start(world.pod(platform=AMD64))
    decision = world.settle()
    assert entry(world, AMD64).phase is Phase.RUNNING
    refused = entry(world, ARM64)
    assert (refused.phase, refused.reason, refused.attempt) == (Phase.PENDING, Reason.POD_REJECTED, 1)
    assert "is forbidden: exceeded quota: q. The operator tries again until the quota has room." in (
        refused.message or ""
    )
    assert [tried.reason for tried in refused.failed_attempts] == [Reason.BUILDER_EVICTED]
    assert condition(world, "Ready") == ("Unknown", Reason.BUILDING)
    assert decision.wake_after == ASK_AGAIN

    world.full.clear()
    world.settle()
    assert (entry(world, ARM64).attempt, entry(world, ARM64).reason) == (2, Reason.PENDING)


@pytest.mark.parametrize("words", ["it broke", "\x1b" * 4096])
def test_a_full_quota_stalls_no_run_however_much_is_said_of_another_platform(words: str) -> None:
    world = World(manifest(retries=1))
    world.settle()
    world.fail(world.pod(platform=AMD64), Reason.BUILD_FAILED, words)
    world.fail(world.pod(platform=ARM64), Reason.REGISTRY_ERROR)
    world.settle()
    world.advance(5)
    world.full.add("Pod")
    world.settle()
    assert entry(world, ARM64).reason is Reason.POD_REJECTED
    assert condition(world, "Reconciling") == ("True", Reason.POD_REJECTED)
    assert condition(world, "Stalled") == ("", "")


def test_a_pod_whose_successor_is_refused_gets_its_source() -> None:
    scheduling = {"strategy": "Auto", "nativeWait": "0s"}
    world = World(manifest(source=GIT, platforms=[AMD64, ARM64], scheduling=scheduling))
    world.nodes = (node("amd64", labels={"multiarch.build/qemu-arm64": "true"}),)
    world.settle()
    emulated = pod_from(world.pod(platform=ARM64)).name
    world.nodes += (node("arm64"),)
    world.full.add("Pod")
    world.succeed_all(Role.RESOLVE)
    world.settle()
    refused = entry(world, ARM64)
    assert (refused.pod, refused.reason) == (emulated, Reason.POD_REJECTED)
    assert pod_from(world.pods[emulated]).source_annotation
    world.succeed_all(Role.BUILD)
    world.full.clear()
    world.settle()
    world.succeed_all(Role.PUBLISH)
    world.settle()
    assert run_of(world).result is Result.SUCCEEDED


def test_what_is_refused_is_told_once() -> None:
    world = World(manifest())
    world.full.add("ConfigMap")
    decision = world.reconcile()
    told = [event for event in decision.events if event.reason == Reason.POD_REJECTED]
    assert [event.type for event in told] == ["Warning"]
    assert world.pods == {}, "without its ConfigMap no pod could start"
    world.advance(60)
    assert world.reconcile().events == ()
    assert (run_of(world).reason, run_of(world).result) == (Reason.POD_REJECTED, None)
    assert (condition(world, "Ready"), condition(world, "Reconciling")) == (
        ("False", Reason.POD_REJECTED),
        ("True", Reason.POD_REJECTED),
    )
    assert kstatus(world.status, 1) == "InProgress"
    world.full.clear()
    world.settle()
    assert len(world.pods) == 2


def test_who_has_to_act_sees_a_stalled_build() -> None:
    world = World(manifest())
    starts = [action for action in world.decide().before if isinstance(action, StartBuild)]
    words = 'violates PodSecurity "restricted"'
    decision = world.decide_with(NotCreated(refused={start.name: words for start in starts}))
    stalled = next(each for each in decision.status.conditions if each.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", Reason.POD_REJECTED)
    assert f"The API server refused {starts[0].name}: {words}. The operator tries again each minute" in stalled.message
    assert [type(action) for action in decision.before] == []
    assert decision.wake_after == ASK_AGAIN


@pytest.mark.parametrize("source", [INLINE, GIT])
def test_what_a_pod_lacks_that_may_come_with_the_build_is_said_and_asked_for_again_soon(source: dict[str, Any]) -> None:
    world = World(manifest(source=source))
    starts = [action for action in world.decide().before if isinstance(action, StartBuild | StartResolve)]
    words = 'error looking up service account team-a/builder: serviceaccount "builder" not found'
    decision = world.decide_with(NotCreated(awaited={start.name: words for start in starts}))
    types = {each.type: each for each in decision.status.conditions}
    assert (types["Ready"].status, types["Reconciling"].status) == ("Unknown", "True")
    assert "Stalled" not in types
    assert f"waiting for what {starts[0].name} needs, which may have been applied with the build: {words}" in (
        types["Ready"].message
    )
    assert decision.wake_after == ASK_SOON
    world.settle()
    assert len(world.pods) == len(starts)


def test_what_got_no_answer_is_as_it_was_before() -> None:
    world = World(manifest())
    amd64, arm64 = (action for action in world.decide().before if isinstance(action, StartBuild))
    decision = world.decide_with(NotCreated(failed=frozenset({arm64.name})))
    run = decision.status.run
    assert run is not None
    assert [(each.pod, each.attempt) for each in run.platforms] == [(amd64.name, 1), (None, 0)]
    assert arm64 not in decision.before


def test_a_look_at_the_source_says_what_its_pod_lacks_until_it_comes() -> None:
    world = World(manifest(source=POLLED))
    world.settle()
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    world.advance(60)
    (start,) = (action for action in world.decide().before if isinstance(action, StartResolve))
    decision = world.decide_with(NotCreated(awaited={start.name: "no PriorityClass with name fast was found"}))
    check = decision.status.source
    assert check is not None
    assert (check.reason, check.pod, check.checks) == (Reason.PENDING, None, 0)
    assert "no PriorityClass with name fast" in (check.message or "")
    assert decision.wake_after == ASK_SOON
    assert not any("look" in each.message for each in decision.status.conditions), "nothing has failed"
    assert not [event for event in decision.events if event.type == "Warning"]
    decision = world.settle()
    check = decision.status.source
    assert check is not None
    assert (check.reason, check.message, check.pod) == (None, None, start.name)


def test_a_look_at_the_source_that_is_refused_says_nothing_of_the_image() -> None:
    world = World(manifest(source=POLLED))
    world.settle()
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    world.full.add("Pod")
    world.advance(60)
    decision = world.settle()
    check = world.status.source
    assert check is not None
    assert (check.reason, check.pod, check.checks) == (Reason.POD_REJECTED, None, 0)
    assert condition(world, "Ready") == ("True", Reason.SUCCEEDED)
    assert kstatus(world.status, 1) == "Current"
    assert decision.wake_after == ASK_AGAIN
    world.full.clear()
    world.settle()
    world.succeed_all(Role.CHECK)
    world.settle()
    check = world.status.source
    assert check is not None
    assert (check.reason, check.message, check.checks) == (None, None, 1)


# Taken by others


def test_a_config_map_of_others_is_not_used() -> None:
    world = World(manifest())
    (inputs,) = (action for action in world.decide().before if isinstance(action, EnsureInputs))
    world.foreign.add(("ConfigMap", inputs.name))
    decision = world.reconcile()
    (own,) = world.config_maps
    assert own in alternatives(inputs.name)[1:]
    assert [event.reason for event in decision.events if event.type == "Warning"] == ["NameTaken"]
    mounted = [
        volume["configMap"]["name"]
        for pod in world.pods.values()
        for volume in pod["spec"]["volumes"]
        if "configMap" in volume
    ]
    assert set(mounted) == {own}
    for role in (Role.BUILD, Role.PUBLISH):
        world.settle()
        world.succeed_all(role)
    world.settle()
    assert run_of(world).result is Result.SUCCEEDED


@pytest.mark.parametrize("killed_after", range(5))
def test_a_pod_of_others_is_not_used(killed_after: int) -> None:
    world = World(manifest())
    first, _ = (action for action in world.decide().before if isinstance(action, StartBuild))
    world.foreign.add(("Pod", first.name))
    world.reconcile(killed_after=killed_after)
    world.settle()
    assert sorted(world.pods)
    assert len(world.pods) == 2, "none is started twice"
    assert entry(world, AMD64).pod in alternatives(first.name)[1:]


def test_when_all_names_are_taken_somebody_has_to_act() -> None:
    world = World(manifest(platforms=[AMD64]))
    (first,) = (action for action in world.decide().before if isinstance(action, StartBuild))
    world.foreign |= {("Pod", name) for name in alternatives(first.name)}
    world.reconcile()
    assert run_of(world).reason is Reason.POD_REJECTED
    assert f"have the names {first.name}, " in (run_of(world).message or "")
    assert condition(world, "Stalled") == ("True", Reason.POD_REJECTED)


@pytest.mark.parametrize("name", ["app-5c379e5b-inputs", "a" * MAX_NAME, f"{'a' * 55}-{'b' * 7}"])
def test_names_are_few_different_and_short_enough(name: str) -> None:
    names = alternatives(name)
    assert (names[0], len(set(names))) == (name, 5)
    assert all(len(each) <= MAX_NAME for each in names)
    assert child(name, NotCreated(taken=frozenset(names[:2]))).name == names[2]


def test_the_name_of_a_run_s_config_map_is_what_it_was() -> None:
    world = World(manifest())
    world.settle()
    assert list(world.config_maps) == [inputs_name(world.build, run_of(world).id)]


# Looked at again


def test_what_goes_on_is_looked_at_every_few_minutes() -> None:
    world = World(manifest())
    world.settle()
    for pod in world.pods.values():
        world.start(pod)
    wake_after = world.settle().wake_after
    assert wake_after is not None
    assert timedelta(minutes=2) < wake_after < timedelta(minutes=4), "a watch may miss what happens"
