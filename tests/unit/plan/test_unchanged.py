"""Requested runs of what is built already: compared first, and built only if anything has changed."""

from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import BuildRequest, LastImage
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.status import BuilderUse, Phase, Result, RunStatus
from multiarchbuild.plan.actions import EnsureInputs, HandOver, StartBuild, StartPublish, StartResolve
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.policy import KeptBuilders, Policy
from tests.unit.plan.test_kept import ran
from tests.unit.plan.world import COMMIT, FLUX, GIT, INLINE, PINNED, World, manifest, spec

AMD64, ARM64 = "linux/amd64", "linux/arm64"
KEPT = Policy(kept_builders=KeptBuilders(default="10m"))
NOT_KEPT = Policy()


def world(policy: Policy = NOT_KEPT, **fields: Any) -> World:
    """Return a cluster after the first run of a build, in which nothing changes from now on."""
    found = World(manifest(**fields), policy=policy, same=True)
    found.reconcile()
    ran(found)
    if run_of(found).result is None:
        found.succeed_all(Role.RESOLVE)
        found.settle()
        found.finish()
    assert run_of(found).result is Result.SUCCEEDED
    return found


def run_of(found: World) -> RunStatus:
    assert found.status.run is not None
    return found.status.run


def again(found: World) -> Decision:
    """Request another run, and return what is decided at once."""
    found.advance(60)
    found.annotate(REBUILD_ANNOTATION, found.now.isoformat())
    return found.reconcile()


def started(decision: Decision, *kinds: type) -> list[Any]:
    return [action for action in decision.before if isinstance(action, kinds)]


SOURCES = {"inline": INLINE, "branch": GIT, "commit": PINNED, "flux": FLUX}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_nothing_changed_takes_one_pod_and_publishes_nothing(source: dict[str, Any]) -> None:
    found = world(source=source)
    image, published = found.status.image, len(found.publications)
    decision = again(found)
    assert not started(decision, StartBuild, StartPublish, HandOver)
    (look,) = started(decision, StartResolve)
    assert isinstance(look.last, LastImage)
    assert found.status.image == image
    assert run_of(found).reason is Reason.RESOLVING
    pods = set(found.pods)
    found.succeed(found.pod(Role.RESOLVE))
    found.settle()
    run = run_of(found)
    assert (run.result, run.reason, run.publish) == (Result.SUCCEEDED, Reason.SUCCEEDED, None)
    assert "nothing has changed" in (run.message or "")
    assert found.status.image == image
    assert image is not None
    assert found.status.history[0].digest == image.digest
    assert {entry.builder for entry in run.platforms} == {BuilderUse.UNCHANGED}
    assert {entry.phase for entry in run.platforms} == {Phase.SUCCEEDED}
    assert set(found.pods) <= pods
    assert len(found.publications) == published


def test_after_a_run_with_nothing_changed_another_is_compared_again() -> None:
    found = world()
    for _ in range(3):
        again(found)
        found.succeed(found.pod(Role.RESOLVE))
        found.settle()
        assert run_of(found).result is Result.SUCCEEDED
    assert len(found.publications) == 1


def test_something_changed_is_built_and_status_says_what() -> None:
    found = world()
    found.same = False
    again(found)
    found.succeed(found.pod(Role.RESOLVE))
    decision = found.reconcile()
    assert len(started(decision, StartBuild)) == 2
    comparison = run_of(found).comparison
    assert comparison is not None
    assert comparison.changed == "busybox:1.36 has moved"


def test_a_new_commit_is_built() -> None:
    found = world(source=GIT)
    found.head = "b" * 40
    again(found)
    found.succeed(found.pod(Role.RESOLVE))
    decision = found.reconcile()
    assert {action.source.commit for action in started(decision, StartBuild)} == {"b" * 40}


def test_a_look_that_fails_fails_no_run() -> None:
    found = world()
    again(found)
    found.fail(found.pod(Role.RESOLVE), Reason.STEP_FAILED, "it broke")
    decision = found.reconcile()
    assert len(started(decision, StartBuild)) == 2
    comparison = run_of(found).comparison
    assert comparison is not None
    assert "it broke" in str(comparison.changed)
    assert run_of(found).resolve is None


ANYWAY: dict[str, dict[str, Any]] = {
    "without the cache": {"cache": {"import": False}},
    "the cache is off": {"cache": {"mode": "Disabled"}},
    "no provenance": {"attestations": {"provenance": "Disabled"}},
    "it is signed": {"output": {**spec()["output"], "signing": {"secretRef": {"name": "key"}}}},
    "children have tags": {"output": {**spec()["output"], "childTags": True}},
    "tags of the run": {"output": {**spec()["output"], "tags": ["{run}"]}},
}


@pytest.mark.parametrize("fields", ANYWAY.values(), ids=ANYWAY)
def test_what_can_not_be_compared_is_built_at_once(fields: dict[str, Any]) -> None:
    found = world(**fields)
    assert len(started(again(found), StartBuild)) == 2
    assert run_of(found).comparison is None


def test_other_inputs_are_built_at_once() -> None:
    found = world()
    found.edit(build={"args": {"A": "1"}})
    assert len(started(again(found), StartBuild)) == 2
    found = world(source=PINNED)
    found.edit(source={"git": {**PINNED["git"], "ref": "2" * len(COMMIT)}})
    assert len(started(again(found), StartBuild)) == 2


def test_kept_builders_compare_by_themselves_and_no_pod_starts() -> None:
    found = world(KEPT)
    image, pods = found.status.image, set(found.pods)
    decision = again(found)
    handed = started(decision, HandOver)
    assert len(handed) == 2
    assert not started(decision, StartResolve, StartBuild, EnsureInputs)
    for action in handed:
        asked = BuildRequest.model_validate_json(
            found.pods[action.pod]["metadata"]["annotations"]["multiarch.build/request"]
        )
        assert asked.last is not None
        assert image is not None
        assert asked.last.digest == image.digest
    ran(found)
    run = run_of(found)
    assert run.result is Result.SUCCEEDED
    assert (found.status.image, run.publish) == (image, None)
    assert {entry.builder for entry in run.platforms} == {BuilderUse.KEPT}
    assert set(found.pods) == pods
    assert all(pod_from(pod).idle for pod in found.pods.values() if pod_from(pod).role is Role.BUILD), "they stay"


def test_where_one_kept_builder_finds_a_change_its_image_is_published_beside_the_others() -> None:
    found = world(KEPT)
    image = found.status.image
    again(found)
    found.answer(found.pod(platform=AMD64))
    decision = found.reconcile()
    assert not started(decision, StartPublish), "so far there is nothing to publish"
    found.same = False
    ran(found)
    run = run_of(found)
    assert run.result is Result.SUCCEEDED
    assert run.comparison is not None
    assert run.comparison.changed
    assert image is not None
    amd64, arm64 = run.platforms
    assert (amd64.pushed == image.digest, arm64.pushed == image.digest) == (True, False)
    assert found.status.image != image


def test_a_kept_builder_that_is_lost_is_replaced_by_one_that_builds() -> None:
    found = world(KEPT, platforms=[AMD64])
    again(found)
    found.end_idle(found.pod())
    (action,) = started(found.reconcile(), StartBuild)
    assert action.attempt == 1
    ran(found)
    found.finish()
    comparison = run_of(found).comparison
    assert comparison is not None
    assert "a new pod has built" in str(comparison.changed), "nobody has found a change"
    assert "linux/amd64: Lost" in str(comparison.changed)


def test_where_status_has_another_image_by_the_time_of_the_answer_it_is_built() -> None:
    found = world()
    again(found)
    found.resource["status"]["image"]["digest"] = "sha256:" + "e" * 64
    found.succeed(found.pod(Role.RESOLVE))
    assert len(started(found.reconcile(), StartBuild)) == 2
    comparison = run_of(found).comparison
    assert comparison is not None
    assert "another image" in str(comparison.changed)


def test_the_tags_of_another_image_are_published_anew() -> None:
    found = world()
    again(found)
    found.publications.append((found.now, "somebody", "sha256:" + "0" * 64))
    found.succeed(found.pod(Role.RESOLVE))
    assert len(started(found.reconcile(), StartBuild)) == 2
