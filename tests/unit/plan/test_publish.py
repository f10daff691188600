"""The publish pod starts while the last builders end, and is handed what they have pushed."""

from typing import Any

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.results import Pushed
from multiarchbuild.api.status import Phase, Result, RunStatus
from multiarchbuild.plan.actions import AnnotateBuilt, DeletePod, StartPublish
from multiarchbuild.plan.children import Role, pod_from
from tests.unit.plan.world import GIT, World, manifest

AMD64, ARM64 = "linux/amd64", "linux/arm64"


def nearly_built(**fields: Any) -> World:
    """Return a cluster with a run of which amd64 is built and arm64 is being built."""
    w = World(manifest(**fields))
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.settle()
    w.succeed(w.pod(platform=AMD64))
    return w


def run_of(w: World) -> RunStatus:
    """Return the run in status."""
    assert w.status.run is not None
    return w.status.run


def roles(w: World) -> list[Role]:
    """Return what the pods are for that have not ended."""
    return [seen.role for seen in map(pod_from, w.pods.values()) if seen.ended is None]


def test_it_starts_when_a_platform_is_built_and_all_others_are_being_built() -> None:
    w = nearly_built()
    (start,) = (action for action in w.reconcile().before if isinstance(action, StartPublish))
    assert start.built is None
    assert run_of(w).reason is Reason.BUILDING, "nothing is published yet"
    w.succeed(w.pod(platform=ARM64))
    (handed,) = (action for action in w.reconcile().before if isinstance(action, AnnotateBuilt))
    pushed = Pushed.model_validate_json(pod_from(w.pod(Role.PUBLISH)).built_annotation)
    assert pushed == handed.built
    assert [image.digest for image in pushed.images] == [entry.pushed for entry in run_of(w).platforms]
    w.succeed_all(Role.PUBLISH)
    w.settle()
    assert run_of(w).result is Result.SUCCEEDED


def test_it_starts_while_the_first_image_is_being_pushed() -> None:
    w = World(manifest())
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.settle()
    w.export(w.pod(platform=AMD64))
    (start,) = (action for action in w.reconcile().before if isinstance(action, StartPublish))
    assert start.built is None
    assert start.near == pod_from(w.pod(platform=AMD64)).node
    w.export(w.pod(platform=ARM64))
    assert w.reconcile().before == ()
    w.succeed_all(Role.BUILD)
    w.settle()
    w.succeed_all(Role.PUBLISH)
    w.settle()
    assert run_of(w).result is Result.SUCCEEDED


def test_it_is_tried_again_wherever_there_is_room() -> None:
    w = nearly_built()
    (first,) = (action for action in w.reconcile().before if isinstance(action, StartPublish))
    assert first.near == pod_from(w.pod(platform=AMD64)).node
    w.fail(w.pod(Role.PUBLISH), Reason.REGISTRY_ERROR)
    w.reconcile()
    w.advance(60)
    (second,) = (action for action in w.reconcile().before if isinstance(action, StartPublish))
    assert (second.attempt, second.near) == (2, "")


def test_it_does_not_start_for_a_push_while_a_platform_waits_for_a_node() -> None:
    w = World(manifest())
    w.settle()
    w.export(w.pod(platform=AMD64))
    w.settle()
    assert Role.PUBLISH not in roles(w)


def test_it_does_not_start_while_a_platform_has_no_builder() -> None:
    w = World(manifest())
    w.settle()
    w.succeed(w.pod(platform=AMD64))
    w.settle()
    assert Role.PUBLISH not in roles(w), "arm64 may wait for a node for hours"


def test_it_does_not_start_before_the_source_is_known() -> None:
    w = nearly_built(source=GIT, retries=0)
    w.settle()
    assert Role.PUBLISH not in roles(w), "tags may name the commit"


def test_handing_over_is_repeated_until_it_is_done() -> None:
    w = nearly_built()
    w.settle()
    w.succeed(w.pod(platform=ARM64))
    w.reconcile(killed_after=0)
    assert not pod_from(w.pod(Role.PUBLISH)).built_annotation
    w.settle()
    assert pod_from(w.pod(Role.PUBLISH)).built_annotation
    assert not [action for action in w.reconcile().before if isinstance(action, AnnotateBuilt)]


def test_it_goes_when_the_last_platform_fails_and_what_was_built_is_kept() -> None:
    w = nearly_built()
    w.settle()
    early = pod_from(w.pod(Role.PUBLISH))
    w.fail(w.pod(platform=ARM64), Reason.BUILD_FAILED)
    decision = w.reconcile()
    assert DeletePod(early.name, early.uid) in decision.after
    assert (run_of(w).result, run_of(w).publish) == (Result.FAILED, None)
    w.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    w.settle()
    phases = {entry.platform: entry.phase for entry in run_of(w).platforms}
    assert phases == {AMD64: Phase.SUCCEEDED, ARM64: Phase.PENDING}, "only what is missing is built again"


def test_one_that_fails_early_fails_the_run_when_all_is_built_and_the_next_one_only_publishes() -> None:
    w = nearly_built()
    w.settle()
    w.fail(w.pod(Role.PUBLISH), Reason.SECRET_INVALID, "this is no key")
    w.settle()
    assert run_of(w).result is None
    w.succeed(w.pod(platform=ARM64))
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.SECRET_INVALID)
    w.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    w.settle()
    assert roles(w) == [Role.PUBLISH]


def test_one_that_is_lost_before_it_was_handed_anything_is_replaced() -> None:
    w = nearly_built()
    w.settle()
    w.evict(w.pod(Role.PUBLISH))
    w.settle()
    w.advance(5)
    w.settle()
    w.succeed(w.pod(platform=ARM64))
    w.settle()
    assert pod_from(w.pod(Role.PUBLISH)).attempt == 2
    w.succeed(w.pod(Role.PUBLISH))
    w.settle()
    assert run_of(w).result is Result.SUCCEEDED
    assert "publish after BuilderEvicted" in (run_of(w).message or "")
