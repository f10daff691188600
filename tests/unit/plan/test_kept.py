"""Which builders stay after a run, which of them serves the next, and what happens when one does not."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from multiarchbuild.api.mounts import IDLE_ANNOTATION, REQUEST_ANNOTATION
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import BuildRequest
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.status import BuilderUse, Phase, PlatformStatus, Result
from multiarchbuild.plan.actions import DeletePod, HandOver, MarkIdle, Resize, StartBuild
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.kept import keep
from multiarchbuild.plan.not_created import ASK_AGAIN, NotCreated
from multiarchbuild.plan.policy import KeptBuilders, Policy
from multiarchbuild.plan.sources import needs_resolving
from tests.unit.plan.world import GIT, INLINE, World, build, log_of, manifest, node

KEPT = Policy(kept_builders=KeptBuilders(default="10m"))
AMD64 = "linux/amd64"


def world(policy: Policy = KEPT, **fields: Any) -> World:
    """Return a cluster with a build whose builder stays, after its first run."""
    found = World(manifest(platforms=[AMD64], **fields), policy=policy)
    found.reconcile()
    ran(found)
    return found


def ran(found: World) -> None:
    """Let the run that goes on end well; its builder answers in its log and stays."""
    for _ in range(4):
        for pod in list(found.pods.values()):
            seen = found.observed(pod)
            if seen.role is Role.RESOLVE and not seen.ended:
                found.succeed(pod)
            elif seen.role is Role.BUILD and seen.template and not seen.concluded:
                if seen.source_annotation or not needs_resolving(found.build.spec):
                    found.answer(pod)
            elif seen.built_annotation and not seen.ended:
                found.succeed(pod)
        found.reconcile()


def again(found: World) -> Decision:
    """Request another run, and return what is decided at once."""
    found.advance(60)
    found.annotate(REBUILD_ANNOTATION, found.now.isoformat())
    return found.reconcile()


def edited(found: World) -> Decision:
    """Edit what is built, and return what is decided at once."""
    found.advance(60)
    found.edit(build={"args": {"A": "2"}})
    return found.reconcile()


def entry(found: World) -> PlatformStatus:
    assert found.status.run is not None
    return found.status.run.platforms[0]


def handed(decision: Decision) -> HandOver | None:
    return next((action for action in decision.before if isinstance(action, HandOver)), None)


@pytest.mark.parametrize(
    ("kept", "resizes", "seconds"),
    [
        ({}, True, 600),
        ({}, False, None),
        ({"idle": None}, True, None),
        ({"default": "0s"}, True, None),
        ({"default": "5m"}, False, 300),
        ({"max": "1m"}, True, 60),
    ],
)
def test_one_stays_by_default_where_that_costs_next_to_nothing(
    kept: dict[str, Any], *, resizes: bool, seconds: int | None
) -> None:
    policy = Policy(kept_builders=KeptBuilders(**kept)).in_cluster(resizes=resizes)
    found = keep(build(), policy)
    assert (found.idle if found else None) == seconds


def test_one_that_kueue_admits_stays_only_where_the_build_says_so() -> None:
    queue = {"podMetadata": {"labels": {"kueue.x-k8s.io/queue-name": "builds"}}}
    assert keep(build(scheduling=queue), KEPT) is None
    assert keep(build(scheduling={**queue, "keepBuilder": "5m"}), KEPT) is not None


@pytest.mark.parametrize(("scheduling", "stays"), [({}, False), ({"keepBuilder": "5m"}, True)])
def test_one_that_a_webhook_has_put_in_a_queue_of_kueue_likewise(scheduling: dict[str, Any], *, stays: bool) -> None:
    found = World(manifest(platforms=[AMD64], scheduling=scheduling), policy=KEPT)
    found.reconcile()
    found.pod()["metadata"]["labels"]["kueue.x-k8s.io/managed"] = "true"
    ran(found)
    assert pod_from(found.pod()).idle is stays


def test_where_it_is_off_nothing_stays() -> None:
    found = world(Policy())
    assert pod_from(found.pod()).template == ""
    assert entry(found).builder is None


def test_a_builder_stays_and_gets_the_next_run() -> None:
    found = world()
    first = pod_from(found.pod())
    assert first.idle
    action = handed(again(found))
    assert action is not None
    assert (action.pod, action.uid, action.number) == (first.name, first.uid, 2)
    assert (entry(found).pod, entry(found).builder) == (first.name, BuilderUse.KEPT)
    assert entry(found).phase is Phase.PENDING
    found.begin(found.pod())
    found.reconcile()
    assert entry(found).phase is Phase.RUNNING
    ran(found)
    assert found.status.run is not None
    assert found.status.run.result is Result.SUCCEEDED
    assert entry(found).attempt == 1
    assert len([pod for pod in found.pods.values() if pod_from(pod).role is Role.BUILD]) == 1


def test_what_it_is_asked_for_is_what_a_pod_of_its_own_would_read() -> None:
    found = world()
    found.edit(source={"inline": {"files": {"Dockerfile": "FROM busybox\n"}}}, build={"args": {"A": "2"}})
    action = handed(found.reconcile())
    assert action is not None
    annotations = found.pods[action.pod]["metadata"]["annotations"]
    asked = BuildRequest.model_validate_json(annotations[REQUEST_ANNOTATION])
    assert asked.name == action.wanted.name
    assert asked.inputs.spec.build.args == {"A": "2"}
    assert asked.contents == {"file.0": "FROM busybox\n"}
    assert annotations[IDLE_ANNOTATION] == ""


def test_a_builder_is_marked_idle_only_once_status_has_its_result() -> None:
    found = World(manifest(platforms=[AMD64]), policy=KEPT)
    found.reconcile()
    found.answer(found.pod())
    decision = found.decide()
    assert any(isinstance(action, MarkIdle) for action in decision.after)
    assert decision.status.run is not None
    assert decision.status.run.platforms[0].phase is Phase.SUCCEEDED


MISSES: dict[str, tuple[dict[str, Any], BuilderUse]] = {
    "resources": ({"scheduling": {"resources": {"limits": {"memory": "3Gi"}}}}, BuilderUse.TEMPLATE_CHANGED),
    "a Secret": (
        {"output": {"image": "registry.example.com/team-a/app", "secretRefs": [{"name": "other"}]}},
        BuilderUse.TEMPLATE_CHANGED,
    ),
    "the cache": ({"cache": {"repository": "registry.example.com/team-a/cache"}}, BuilderUse.TEMPLATE_CHANGED),
    "the timeout": ({"timeout": "2h"}, BuilderUse.TEMPLATE_CHANGED),
}


def requests(found: World) -> dict[str, tuple[str, str]]:
    return {name: (cpu, memory) for name, cpu, memory in pod_from(found.pod()).requests}


RESOURCES = {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}}}
BUSY = {"step": ("50m", "64Mi"), "buildkitd": ("2", "4Gi")}
IDLE = {"step": ("5m", "33554432"), "buildkitd": ("5m", "33554432")}


def test_one_that_waits_requests_little_and_has_all_again_after_the_hand_over() -> None:
    found = world(scheduling=RESOURCES)
    assert requests(found) == IDLE
    decision = again(found)
    assert requests(found) == BUSY
    assert any(isinstance(action, HandOver) for action in decision.before)
    assert [action for action in decision.after if isinstance(action, Resize)], "beside the build, not before it"
    ran(found)
    assert requests(found) == IDLE


def test_limits_and_what_is_not_requested_stay_as_they_are() -> None:
    found = world(scheduling={"resources": {"requests": {"memory": "1Mi", "ephemeral-storage": "1Gi"}}})
    (sidecar,) = found.pod()["spec"]["initContainers"]
    assert sidecar["resources"]["requests"]["memory"] == "1Mi", "it is less than what one may have"
    assert sidecar["resources"]["requests"]["ephemeral-storage"] == "1Gi"
    assert "limits" not in sidecar["resources"]
    assert found.pod()["spec"]["containers"][0]["resources"]["limits"] == {"memory": "2Gi"}


def test_an_operator_that_was_killed_before_it_resized_does_so_at_the_next_look() -> None:
    found = world(scheduling=RESOURCES)
    found.advance(60)
    found.annotate(REBUILD_ANNOTATION, found.now.isoformat())
    found.reconcile(killed_after=1)
    assert requests(found) == IDLE
    found.reconcile()
    assert requests(found) == BUSY


def test_requests_are_lowered_only_once_those_of_a_build_are_noted() -> None:
    found = World(manifest(platforms=[AMD64], scheduling=RESOURCES), policy=KEPT)
    found.reconcile()
    found.answer(found.pod())
    decision = found.decide()
    for action in decision.after:
        if isinstance(action, Resize):  # that it waits was not said: the request has failed
            found.perform(action)
    assert requests(found) == BUSY
    ran(found)
    assert requests(found) == IDLE
    again(found)
    assert requests(found) == BUSY


def test_requests_that_a_quota_does_not_give_back_are_asked_for_again_while_it_builds() -> None:
    found = world(scheduling=RESOURCES)
    found.cpu = Decimal(1)
    again(found)
    found.begin(found.pod())
    decision = found.reconcile()
    assert requests(found) == IDLE
    assert decision.wake_after is not None
    assert decision.wake_after <= ASK_AGAIN
    found.now += decision.wake_after
    found.cpu = None
    found.reconcile()
    assert requests(found) == BUSY


@pytest.mark.parametrize(
    "policy",
    [KEPT.in_cluster(resizes=False), Policy(kept_builders=KeptBuilders(default="10m", idle=None))],
    ids=["the cluster does not resize", "the policy says so"],
)
def test_where_nothing_is_resized_it_keeps_what_it_has(policy: Policy) -> None:
    found = world(policy, scheduling=RESOURCES)
    assert pod_from(found.pod()).idle
    assert requests(found) == BUSY


def test_a_pod_whose_requests_are_its_limits_keeps_them() -> None:
    found = World(manifest(platforms=[AMD64], scheduling=RESOURCES), policy=KEPT)
    found.reconcile()
    found.start(found.pod())
    found.pod()["status"]["qosClass"] = "Guaranteed"
    ran(found)
    assert pod_from(found.pod()).idle
    assert requests(found) == BUSY


def test_one_that_kueue_has_admitted_keeps_them_as_it_would_be_taken_away() -> None:
    queue = {"podMetadata": {"labels": {"kueue.x-k8s.io/queue-name": "builds"}}}
    found = world(scheduling={**RESOURCES, **queue, "keepBuilder": "5m"})
    assert pod_from(found.pod()).idle
    assert requests(found) == BUSY


@pytest.mark.parametrize(("edit", "why"), MISSES.values(), ids=MISSES)
def test_an_edit_that_needs_another_pod_gets_one(edit: dict[str, Any], why: BuilderUse) -> None:
    found = world()
    old = pod_from(found.pod())
    found.edit(**edit, build={"args": {"A": "2"}})
    decision = found.reconcile()
    assert handed(decision) is None
    assert any(isinstance(action, StartBuild) for action in decision.before)
    assert DeletePod(old.name, old.uid) in decision.after
    assert entry(found).builder is why


def test_the_builder_that_a_refused_pod_is_to_replace_makes_room_for_it() -> None:
    found = world()
    old = pod_from(found.pod())
    found.full.add("Pod")
    found.edit(timeout="2h", build={"args": {"A": "2"}})
    decision = found.reconcile()
    assert entry(found).reason is Reason.POD_REJECTED
    assert DeletePod(old.name, old.uid) in decision.after


def test_a_builder_on_a_node_that_can_not_be_used_is_not() -> None:
    for bad in (
        node("amd64", ready=False),
        node("amd64", schedulable=False),
        replace(node("amd64"), disk_pressure=True),
    ):
        found = world()
        found.nodes = (bad, node("amd64", name="another"))
        assert handed(edited(found)) is None
        assert entry(found).builder is BuilderUse.NODE_UNUSABLE


def test_age_and_runs_are_bounded() -> None:
    found = world(Policy(kept_builders=KeptBuilders(default="10m", max_age="1m")))
    edited(found)
    assert entry(found).builder is BuilderUse.WORN_OUT
    found = world(Policy(kept_builders=KeptBuilders(default="10m", max_runs=2)))
    assert handed(edited(found)) is not None
    ran(found)
    assert not pod_from(found.pod()).idle, "it ends by itself"


def test_a_builder_whose_buildkitd_was_restarted_goes() -> None:
    found = world()
    found.pod()["status"]["initContainerStatuses"] = [
        {"name": "buildkitd", "restartCount": 1, "state": {"running": {"startedAt": "2026-01-31T12:00:00Z"}}}
    ]
    assert handed(again(found)) is None


def test_a_builder_that_is_gone_costs_no_attempt() -> None:
    found = world()
    again(found)
    old = entry(found).pod
    found.end_idle(found.pod())  # with the result of the run before
    decision = found.reconcile()
    assert any(isinstance(action, StartBuild) for action in decision.before)
    assert (entry(found).attempt, entry(found).builder) == (1, BuilderUse.LOST)
    assert entry(found).pod != old
    assert entry(found).failed_attempts == ()
    assert [event.reason for event in decision.events] == ["KeptBuilderLost"]


def test_a_builder_that_does_not_begin_is_given_up_and_never_used_again() -> None:
    found = world()
    decision = again(found)
    assert decision.wake_after is not None
    found.now += decision.wake_after
    old = pod_from(found.pod())
    decision = found.reconcile()
    assert (entry(found).attempt, entry(found).builder) == (1, BuilderUse.NO_ANSWER)
    assert DeletePod(old.name, old.uid) in decision.after


def test_a_request_that_can_not_be_handed_over_becomes_a_pod_in_the_same_look() -> None:
    found = world()
    found.advance(60)
    found.annotate(REBUILD_ANNOTATION, found.now.isoformat())
    name = pod_from(found.pod()).name
    decision = found.decide_with(NotCreated(not_handed=frozenset({name})))
    assert handed(decision) is None
    assert decision.status.run is not None
    assert decision.status.run.platforms[0].builder is BuilderUse.REFUSED


def test_what_the_build_is_to_blame_for_fails_in_a_kept_builder_too() -> None:
    found = world()
    again(found)
    pod = found.pod()
    found.begin(pod)
    found.reconcile()
    found.fail(pod, Reason.BUILD_FAILED)
    found.reconcile()
    assert (entry(found).phase, entry(found).reason) == (Phase.FAILED, Reason.BUILD_FAILED)


OF_THE_POD = [Reason.OUT_OF_DISK, Reason.OUT_OF_MEMORY, Reason.PUSH_DENIED, Reason.GIT_AUTHENTICATION_FAILED]
OF_THE_POD += [Reason.SOURCE_DENIED, Reason.BASE_IMAGE_DENIED, Reason.IDENTITY_DENIED, Reason.SECRET_NOT_FOUND]


@pytest.mark.parametrize("reason", OF_THE_POD)
def test_what_a_full_disk_or_an_old_secret_may_be_to_blame_for_is_tried_in_a_new_pod(reason: Reason) -> None:
    found = world()
    again(found)
    old = found.pod()
    found.begin(old)
    found.reconcile()
    found.fail(old, reason)
    decision = found.reconcile()
    assert any(isinstance(action, StartBuild) for action in decision.before)
    assert (entry(found).attempt, entry(found).builder, entry(found).failed_attempts) == (1, BuilderUse.LOST, ())
    found.fail(found.pod(), reason)
    found.reconcile()
    if reason is Reason.SECRET_NOT_FOUND:
        assert entry(found).reason is Reason.RETRYING, "it may come yet, for whichever pod"
    else:
        assert (entry(found).phase, entry(found).reason) == (Phase.FAILED, reason), "once"


def test_a_kept_builder_that_the_kubelet_evicts_for_its_disk_is_lost() -> None:
    found = world()
    again(found)
    found.begin(found.pod())
    found.reconcile()
    message = 'Usage of EmptyDir volume "buildkitd-state" exceeds the limit "30Gi".'
    found.pod()["status"] = {"phase": "Failed", "reason": "Evicted", "message": message}
    assert any(isinstance(action, StartBuild) for action in found.reconcile().before)
    assert (entry(found).attempt, entry(found).builder) == (1, BuilderUse.LOST)


def test_a_platform_that_the_spec_writes_in_another_way_keeps_its_builder() -> None:
    found = World(manifest(platforms=["linux/arm64/v8"]), policy=KEPT)
    found.reconcile()
    found.schedule(found.pod(), "node-arm64")
    ran(found)
    assert pod_from(found.pod()).idle
    assert handed(edited(found)) is not None


def test_after_a_mistake_in_the_dockerfile_the_builder_stays_for_the_run_that_corrects_it() -> None:
    found = world()
    edited(found)
    pod = found.pod()
    found.begin(pod)
    found.answer_failure(pod, Reason.BUILD_FAILED)
    decision = found.reconcile()
    assert any(isinstance(action, MarkIdle) for action in decision.after)
    assert found.status.run is not None
    assert (found.status.run.result, entry(found).reason) == (Result.FAILED, Reason.BUILD_FAILED)
    assert pod_from(found.pod()).idle
    found.edit(build={"args": {"A": "3"}})
    action = handed(found.reconcile())
    assert action is not None
    assert action.pod == pod["metadata"]["name"]


@pytest.mark.parametrize("reason", [Reason.OUT_OF_MEMORY, Reason.PUSH_DENIED, Reason.STEP_FAILED])
def test_after_any_other_failure_the_end_of_its_container_is_waited_for(reason: Reason) -> None:
    found = world()
    edited(found)
    pod = found.pod()
    found.begin(pod)
    found.answer_failure(pod, reason)
    found.reconcile()
    assert entry(found).phase is Phase.RUNNING
    assert not pod_from(found.pod()).idle


def test_what_a_buildkitd_says_that_was_killed_meanwhile_waits_for_the_end_of_its_container() -> None:
    found = world()
    edited(found)
    pod = found.pod()
    found.begin(pod)
    found.answer_failure(pod, Reason.BUILD_FAILED)
    pod["status"]["initContainerStatuses"] = [
        {"name": "buildkitd", "restartCount": 1, "state": {}, "lastState": {"terminated": {"reason": "OOMKilled"}}}
    ]
    found.reconcile()
    assert entry(found).phase is Phase.RUNNING


@pytest.mark.parametrize("fields", [{"cache": {"mode": "Disabled"}}, {"scheduling": {"keepBuilder": "0s"}}])
def test_a_build_that_wants_no_cache_or_no_builder_keeps_none(fields: dict[str, Any]) -> None:
    assert pod_from(world(**fields).pod()).template == ""


def test_a_source_that_is_resolved_meanwhile_follows() -> None:
    found = world(source=GIT)
    found.head = "b" * 40
    again(found)
    pod = found.pod()
    assert pod_from(pod).handed is not None
    assert pod_from(pod).source_annotation == "", "never the commit of the run before"
    ran(found)
    assert "b" * 40 in pod_from(found.pod()).source_annotation


def test_an_operator_that_is_killed_between_two_requests_hands_nothing_over_twice() -> None:
    found = world(source=INLINE)
    found.advance(60)
    found.annotate(REBUILD_ANNOTATION, found.now.isoformat())
    found.reconcile(killed_after=1)
    assert len(found.handed) == 1
    found.reconcile()
    assert len(found.handed) == 1
    assert entry(found).builder is BuilderUse.KEPT
    assert log_of(pod_from(found.pod())) not in found.logs
