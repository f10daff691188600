"""The pod of the publish step stays as builders do, and what happens when it does not."""

from typing import Any

import pytest

from multiarchbuild.api.mounts import REQUEST_ANNOTATION
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import PublishRequest
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.status import BuilderUse, Result, RunStatus, Status, StepStatus
from multiarchbuild.plan.actions import AnnotateBuilt, HandOver, StartPublish
from multiarchbuild.plan.children import Pod, Role, pod_from
from multiarchbuild.plan.kept import BEGIN
from multiarchbuild.plan.policy import KeptBuilders, Policy
from tests.unit.plan.test_tenants import KEYLESS
from tests.unit.plan.world import World, manifest

KEPT = Policy(kept_builders=KeptBuilders(default="10m"))
AMD64 = "linux/amd64"
EXPIRES = {"image": "registry.example.com/team-a/app", "tags": ["latest"], "expire": "720h"}


def world(policy: Policy = KEPT, **fields: Any) -> World:
    """Return a cluster with a build whose pods stay, after its first run."""
    found = World(manifest(**fields), policy=policy)
    found.settle()
    ran(found)
    assert run_of(found).result is Result.SUCCEEDED
    return found


def answer(found: World, role: Role) -> None:
    """Let the pods of a role begin, and say in their logs what came of it; those that do not stay end."""
    for pod in list(found.pods.values()):
        seen = found.observed(pod)
        if seen.role is role and not seen.concluded:
            found.begin(pod)
            found.answer(pod) if seen.template else found.succeed(pod)


def ran(found: World) -> None:
    """Let the run that goes on end well."""
    for role in (Role.BUILD, Role.PUBLISH):
        answer(found, role)
        found.settle()


def edited(found: World, **fields: Any) -> None:
    """Edit what is built; the builders build it."""
    found.advance(60)
    found.edit(build={"args": {"A": str(len(found.published))}}, **fields)
    found.settle()


def asked(found: World) -> str:
    """Edit what is built and have it built; return the name of the kept pod that is asked to publish it."""
    edited(found)
    answer(found, Role.BUILD)
    found.settle()
    return str(step(found).pod)


def run_of(found: World) -> RunStatus:
    assert found.status.run is not None
    return found.status.run


def step(found: World) -> StepStatus:
    publish = run_of(found).publish
    assert publish is not None
    return publish


def publishers(found: World) -> list[Pod]:
    """Return the pods of publish steps that have not ended."""
    pods = map(pod_from, found.pods.values())
    return [pod for pod in pods if pod.role is Role.PUBLISH and pod.ended is None and not pod.deleting]


def test_it_stays_and_publishes_the_next_run() -> None:
    found = world(output={"image": "registry.example.com/team-a/app", "tags": ["{run}"]})
    first = step(found)
    assert first.reuse is BuilderUse.NONE_KEPT
    edited(found)
    answer(found, Role.BUILD)
    (handed,) = (action for action in found.reconcile().before if isinstance(action, HandOver))
    assert isinstance(handed.wanted, StartPublish)
    assert (handed.pod, handed.number) == (first.pod, 2)
    found.settle()
    ran(found)
    assert run_of(found).result is Result.SUCCEEDED
    assert (step(found).pod, step(found).attempt, step(found).reuse) == (first.pod, 1, BuilderUse.KEPT)
    assert found.status.image is not None
    assert found.status.image.tags == (run_of(found).id,)
    assert found.status.image.digest == found.published[run_of(found).id]
    (pod,) = publishers(found)
    assert pod.idle
    assert pod.requests == (("step", "10m", "64Mi"),), "it costs next to nothing"


def test_it_is_asked_while_the_first_image_is_being_pushed_and_handed_what_was_built_later() -> None:
    found = world()
    edited(found)
    for pod in found.pods.values():
        if pod_from(pod).role is Role.BUILD:
            found.begin(pod)
    found.settle()
    found.export(found.pod(platform=AMD64))
    found.settle()
    (early,) = publishers(found)
    assert early.run_id == run_of(found).id
    assert early.built_annotation == "", "not what was built for the run before"
    assert early.built_at is None
    found.begin(found.pods[early.name])
    answer(found, Role.BUILD)
    assert any(isinstance(action, AnnotateBuilt) for action in found.reconcile().before)
    (told,) = publishers(found)
    assert told.built_at == found.now
    ran(found)
    assert step(found).reuse is BuilderUse.KEPT


def test_what_it_is_asked_for_is_what_a_pod_of_its_own_would_be_told() -> None:
    found = world(output={"image": "registry.example.com/team-a/app", "tags": ["{run}"]})
    edited(found)
    answer(found, Role.BUILD)
    found.settle()
    (pod,) = publishers(found)
    request = PublishRequest.model_validate_json(found.pods[pod.name]["metadata"]["annotations"][REQUEST_ANNOTATION])
    assert request.inputs.run == run_of(found).id
    assert request.inputs.spec.build.args == found.build.spec.build.args
    assert request.arguments == (f"--tag={run_of(found).id}",)


@pytest.mark.parametrize("fields", [{"cache": {"expire": "720h"}}, {"output": EXPIRES}])
def test_one_that_deletes_what_has_expired_does_not_stay(fields: dict[str, Any]) -> None:
    """It has answered before it deletes, and would neither begin in time nor be read."""
    found = world(**fields)
    assert step(found).reuse is None
    assert publishers(found) == []


def test_it_gives_way_to_a_builder_that_a_quota_refuses() -> None:
    found = world(platforms=[AMD64])
    found.full = {"Pod"}
    edited(found, scheduling={"resources": {"requests": {"cpu": "3"}}})
    assert publishers(found) == []


def test_a_definition_without_room_for_it_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    write = World.write

    def pruned(self: World, status: Status) -> None:
        write(self, status)
        (self.resource["status"].get("run") or {}).get("publish", {}).pop("reuse", None)

    monkeypatch.setattr(World, "write", pruned)
    found = world(retries=0)
    edited(found)
    answer(found, Role.BUILD)
    found.settle()
    found.advance(BEGIN.total_seconds())
    found.settle()
    ran(found)
    assert run_of(found).result is Result.SUCCEEDED
    assert step(found).attempt == 1


def test_one_that_does_not_begin_is_replaced_in_the_same_attempt() -> None:
    found = world()
    kept = asked(found)
    assert (step(found).reason, step(found).reuse) == (Reason.PENDING, BuilderUse.KEPT)
    found.advance(BEGIN.total_seconds())
    found.settle()
    assert (step(found).attempt, step(found).reuse) == (1, BuilderUse.NO_ANSWER)
    assert step(found).pod != kept
    assert kept not in {pod.name for pod in publishers(found)}
    ran(found)
    assert run_of(found).result is Result.SUCCEEDED


def test_one_that_has_begun_is_waited_for_by_an_operator_that_can_not_read_its_log() -> None:
    found = world()
    found.begin(found.pods[asked(found)])
    found.settle()
    assert step(found).reason is None
    found.follows_logs = False
    found.advance(60)
    found.settle()
    assert step(found).reuse is BuilderUse.KEPT


def test_one_that_is_lost_or_fails_for_its_registry_is_replaced_in_the_same_attempt() -> None:
    for fails in (False, True):
        found = world()
        kept = asked(found)
        found.begin(found.pods[kept])
        found.settle()
        if fails:
            found.fail(found.pods[kept], Reason.REGISTRY_ERROR)
        else:
            del found.pods[kept]
        found.settle()
        assert (step(found).attempt, step(found).reuse) == (1, BuilderUse.LOST)
        assert step(found).pod != kept
        ran(found)
        assert run_of(found).result is Result.SUCCEEDED


def test_one_that_was_given_up_and_has_published_counts() -> None:
    found = world()
    kept = asked(found)
    found.advance(BEGIN.total_seconds())
    found.reconcile(killed_after=2)
    found.begin(found.pods[kept])
    found.answer(found.pods[kept])
    found.settle()
    assert run_of(found).result is Result.SUCCEEDED
    assert (step(found).pod, step(found).reuse) == (kept, BuilderUse.KEPT)


@pytest.mark.parametrize("signing", [{"secretRef": {"name": "cosign"}}, {"keyless": True}], ids=str)
def test_one_that_can_sign_does_not_stay(signing: dict[str, Any]) -> None:
    tenant = {"namespaces": ["*"], "signing": {"keyless": KEYLESS}}
    policy = Policy.model_validate({**KEPT.model_dump(by_alias=True), "tenants": [tenant]})
    found = world(policy, output={"image": "registry.example.com/team-a/app", "signing": signing})
    assert step(found).reuse is None
    assert publishers(found) == []


def test_another_repository_or_secret_needs_another_pod() -> None:
    found = world()
    first = step(found).pod
    edited(found, output={"image": "registry.example.com/team-a/app", "secretRefs": [{"name": "other"}]})
    ran(found)
    assert step(found).pod != first
    assert step(found).reuse is BuilderUse.TEMPLATE_CHANGED
    assert len(publishers(found)) == 1, "the old one is gone"


def test_it_goes_when_no_builder_stays() -> None:
    found = world()
    for pod in list(found.pods.values()):
        if pod_from(pod).role is Role.BUILD:
            found.end_idle(pod)
    found.settle()
    assert publishers(found) == []


def test_it_stays_while_a_run_has_lost_its_builders() -> None:
    found = world()
    edited(found)
    for pod in list(found.pods.values()):
        if pod_from(pod).role is Role.BUILD:
            del found.pods[pod_from(pod).name]
    found.settle()
    assert len(publishers(found)) == 1, "new builders come, and it publishes what they build"


def test_a_run_that_is_cancelled_takes_it_along() -> None:
    found = world()
    edited(found)
    answer(found, Role.BUILD)
    found.export(found.pod(platform=AMD64))
    found.settle()
    assert publishers(found)[0].run_id == run_of(found).id
    found.advance(BEGIN.total_seconds())
    found.begin(found.pods[publishers(found)[0].name])
    found.annotate(CANCEL_ANNOTATION, run_of(found).id)
    found.advance(60)
    found.settle()
    assert run_of(found).result is Result.CANCELLED
    assert publishers(found) == []


def test_an_operator_that_is_killed_between_two_requests_hands_nothing_over_twice() -> None:
    for requests in range(4):
        found = world()
        edited(found)
        handed = len(found.handed)
        answer(found, Role.BUILD)
        found.reconcile(killed_after=requests)
        found.settle()
        assert found.handed[handed:] == [Role.PUBLISH]
        ran(found)
        assert run_of(found).result is Result.SUCCEEDED


def test_an_image_of_a_run_that_nobody_knows_is_not_taken_from_one_that_waits() -> None:
    found = world(history={"successful": 0, "failed": 0})
    pod = found.pods[str(step(found).pod)]
    newest = found.status.image
    pod["metadata"]["labels"]["multiarch.build/run"] = "0123456789"
    found.advance(60)
    found.end_idle(pod)
    found.settle()
    assert found.status.image == newest, "it was published when it was, and not when its pod ended"
