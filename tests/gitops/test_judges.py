"""What kstatus and Argo CD make of a build in every state it can be in: their own code, no cluster."""

from collections.abc import Callable
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.plan.build_summary import BuildSummary
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
from tests.support import judges
from tests.unit.plan import world
from tests.unit.plan.world import World

Object = dict[str, Any]


def _object(resource: Object) -> Object:
    """Return `resource` as kubectl prints it: the API server fills in observedGeneration."""
    kind = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild"}
    return {**kind, **resource, "status": {"observedGeneration": -1, **resource.get("status", {})}}


def _succeed(state: World) -> None:
    state.settle()
    state.succeed_all(Role.BUILD)
    state.settle()
    state.succeed_all(Role.PUBLISH)
    state.settle()


def _fail(state: World) -> None:
    state.settle()
    state.fail(state.pod(platform="linux/arm64"), Reason.BUILD_FAILED, "RUN make: exit code 2")
    state.settle()


def unseen(_: World) -> None:
    pass


def started(state: World) -> None:
    state.settle()


def building(state: World) -> None:
    state.settle()
    state.start(state.pod())
    state.settle()


def one_platform_failed_while_the_other_builds(state: World) -> None:
    _fail(state)


def failed(state: World) -> None:
    _fail(state)
    state.succeed_all(Role.BUILD)
    state.settle()


def retrying(state: World) -> None:
    state.settle()
    state.fail(state.pod(), Reason.REGISTRY_ERROR, "503")
    state.settle()


def publishing(state: World) -> None:
    state.settle()
    state.succeed_all(Role.BUILD)
    state.settle()


def succeeded(state: World) -> None:
    _succeed(state)


def edited_after_it_succeeded(state: World) -> None:
    _succeed(state)
    state.edit(build={"args": {"A": "2"}})


def built_again(state: World) -> None:
    edited_after_it_succeeded(state)
    state.settle()


def cancelled(state: World) -> None:
    state.settle()
    assert state.status.run is not None
    state.annotate(CANCEL_ANNOTATION, state.status.run.id)
    state.settle()


def suspended_from_the_start(state: World) -> None:
    state.edit(suspend=True)
    state.settle()


def suspended_after_it_succeeded(state: World) -> None:
    _succeed(state)
    state.edit(suspend=True)
    state.settle()


def suspended_after_it_failed(state: World) -> None:
    failed(state)
    state.edit(suspend=True)
    state.settle()


def denied_by_the_policy(state: World) -> None:
    state.policy = Policy.model_validate({"outputs": [{"namespaces": ["team-b"], "registries": ["*"]}]})
    state.settle()


def waiting_for_its_turn(state: World) -> None:
    state.policy = Policy.model_validate({"concurrency": {"cluster": 1}})
    name, uid = "another", "5f6c1f0e-5f3e-4a55-8a0b-6c1d1a1f0002"
    running = BuildSummary(
        "team-b", name, uid, world.START, running=True, waiting_since=None, image="", tags=frozenset()
    )
    state.settle(others=[running])


def being_deleted(state: World) -> None:
    _succeed(state)
    state.resource["metadata"]["deletionTimestamp"] = world.timestamp(state.now)


STATES: list[tuple[Callable[[World], None], str, str]] = [
    (unseen, "InProgress", "Progressing"),
    (started, "InProgress", "Progressing"),
    (building, "InProgress", "Progressing"),
    (one_platform_failed_while_the_other_builds, "InProgress", "Progressing"),
    (retrying, "InProgress", "Progressing"),
    (publishing, "InProgress", "Progressing"),
    (succeeded, "Current", "Healthy"),
    (edited_after_it_succeeded, "InProgress", "Progressing"),
    (built_again, "InProgress", "Progressing"),
    (failed, "Failed", "Degraded"),
    (cancelled, "Failed", "Degraded"),
    # Nothing will ever be built before somebody resumes it: who waits for it has to wait.
    (suspended_from_the_start, "InProgress", "Suspended"),
    (suspended_after_it_succeeded, "Current", "Suspended"),
    (suspended_after_it_failed, "Failed", "Degraded"),
    (denied_by_the_policy, "Failed", "Degraded"),
    (waiting_for_its_turn, "InProgress", "Progressing"),
    (being_deleted, "Terminating", "Progressing"),
]


def _reached(reach: Callable[[World], None]) -> World:
    state = World()
    reach(state)
    return state


def test_kstatus_and_argo_cd_understand_every_state() -> None:
    objects = [_object(_reached(reach).resource) for reach, _, _ in STATES]
    seen = zip(judges.kstatus(objects), judges.argocd(objects), strict=True)
    assert [(status, answer["health"]["status"]) for status, answer in seen] == [
        (kstatus, argocd) for _, kstatus, argocd in STATES
    ]


def test_the_simulation_judges_as_kstatus_does() -> None:
    """`world.kstatus` is what the simulation holds every state against, and it must be the real thing's twin."""
    states = [_reached(reach) for reach, _, _ in STATES if reach is not being_deleted]
    real = judges.kstatus(_object(state.resource) for state in states)
    assert [world.kstatus(state.status, state.resource["metadata"]["generation"]) for state in states] == real


def test_the_states_are_those_that_they_are_called() -> None:
    expected: dict[Callable[[World], None], str] = {
        failed: "BuildFailed",
        retrying: "Retrying",
        publishing: "Publishing",
        cancelled: "Cancelled",
        suspended_from_the_start: "Suspended",
        denied_by_the_policy: "PolicyDenied",
        waiting_for_its_turn: "Queued",
    }
    for reach, reason in expected.items():
        ready = next(entry for entry in _reached(reach).status.conditions if entry.type == "Ready")
        assert ready.reason == reason


def test_argo_cd_says_what_status_says() -> None:
    (answer,) = judges.argocd([_object(_reached(failed).resource)])
    assert answer["health"]["message"] == "BuildFailed: linux/arm64: RUN make: exit code 2"


def test_an_object_without_status_is_not_healthy() -> None:
    resource = {key: value for key, value in _object(World().resource).items() if key != "status"}
    (answer,) = judges.argocd([resource])
    assert answer["health"]["status"] == "Progressing"


@pytest.mark.parametrize(
    ("reach", "possible"),
    [
        (building, {"rebuild", "cancel", "suspend"}),
        (succeeded, {"rebuild", "suspend"}),
        (suspended_from_the_start, {"resume"}),
    ],
)
def test_argo_cd_offers_the_actions_that_make_sense(reach: Callable[[World], None], possible: set[str]) -> None:
    (answer,) = judges.argocd([_object(_reached(reach).resource)])
    assert {name for name, enabled in answer["actions"].items() if enabled} == possible
    assert set(answer["actions"]) == {"rebuild", "cancel", "suspend", "resume"}


def _acted(reach: Callable[[World], None], action: str) -> World:
    state = _reached(reach)
    (answer,) = judges.argocd([_object(state.resource)], action)
    (changed,) = answer["changed"]
    state.resource |= {"spec": changed["spec"]}
    state.resource["metadata"]["annotations"] = changed["metadata"].get("annotations", {})
    state.settle()
    return state


def test_argo_cd_can_ask_for_another_run() -> None:
    state = _acted(succeeded, "rebuild")
    assert state.status.run is not None
    assert (state.status.run.trigger, state.status.run.result) == ("Requested", None)


def test_argo_cd_can_cancel_a_run() -> None:
    state = _acted(building, "cancel")
    assert state.status.run is not None
    assert state.status.run.result == "Cancelled"


def test_argo_cd_can_suspend_and_resume() -> None:
    assert _acted(succeeded, "suspend").build.spec.suspend
    state = _acted(suspended_from_the_start, "resume")
    assert not state.build.spec.suspend
    assert state.status.run is not None
