"""What changes none of the files in `source.paths` starts no run, and status says what was looked at."""

from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.status import Trigger
from multiarchbuild.plan.children import Role
from tests.unit.plan.test_polling import MOVED, built, checks, due, look, ready
from tests.unit.plan.world import FLUX, GIT, PATHS, POLLED, World, digest_of

SOME = {**POLLED, **PATHS}
OF_FLUX = {**FLUX, **PATHS}


def end(world: World) -> None:
    """Let the run end well."""
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()


def moved(world: World, *, relevant: bool) -> None:
    """Move the branch, or Flux to the next revision."""
    world.head = MOVED
    world.relevant = "2" if relevant else world.relevant


def test_a_run_knows_what_the_files_were() -> None:
    world = built(source=SOME)
    assert world.status.run
    assert world.status.run.source
    assert world.status.run.source.paths == digest_of("1")


def test_a_commit_that_changes_none_of_them_is_looked_at_and_skipped() -> None:
    world = built(source=SOME)
    first = world.status.run
    moved(world, relevant=False)
    look(world)
    status = world.status
    assert status.run == first
    assert status.source
    assert (status.source.commit, status.source.skipped) == (MOVED, True)
    assert ready(status)[0] == "True"
    assert f"commit {MOVED} is not built: it changes no file that source.paths includes" in ready(status)[1]


def test_a_commit_that_changes_one_of_them_is_built() -> None:
    world = built(source=SOME)
    moved(world, relevant=True)
    look(world)
    run = world.status.run
    assert run
    assert run.source
    assert (run.trigger, run.source.commit, run.source.paths) == (Trigger.SOURCE_CHANGED, MOVED, digest_of("2"))
    assert world.status.source
    assert not world.status.source.skipped


def test_without_anything_to_compare_with_it_is_built() -> None:
    """As after an upgrade, or where the field is new."""
    world = built(source=POLLED)
    first = world.status.run
    world.edit(source=SOME)
    world.settle()
    assert world.status.run == first, "it says nothing about the image"
    moved(world, relevant=False)
    look(world)
    assert world.status.run
    assert world.status.run.trigger is Trigger.SOURCE_CHANGED


def test_who_asks_for_a_run_gets_one() -> None:
    world = built(source=SOME)
    moved(world, relevant=False)
    look(world)
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    assert world.status.run
    assert world.status.run.trigger is Trigger.REQUESTED


@pytest.mark.parametrize("source", [GIT, {**GIT, **PATHS}, SOME])
def test_a_look_that_is_asked_for_is_at_once_and_once(source: dict[str, Any]) -> None:
    world = built(source=source)
    first = world.status.run
    world.annotate(FLUX_RECONCILE_ANNOTATION, "push-1")
    world.settle()
    assert len(checks(world)) == 1
    world.succeed_all(Role.CHECK)
    world.settle()
    assert world.status.run == first
    assert world.status.source
    assert (world.status.source.checks, world.status.source.requested) == (1, None)
    assert world.status.last_handled_reconcile_at == "push-1"
    world.settle()
    assert checks(world) == []


def test_a_look_that_is_asked_for_during_a_run_comes_after_it() -> None:
    world = built(source=GIT)
    world.annotate(REBUILD_ANNOTATION, "2026-02-01T00:00:00Z")
    world.settle()
    world.annotate(FLUX_RECONCILE_ANNOTATION, "push-1")
    world.settle()
    assert checks(world) == []
    world.succeed_all(Role.RESOLVE)
    world.settle()
    world.head = MOVED
    end(world)
    assert len(checks(world)) == 1
    world.succeed_all(Role.CHECK)
    world.settle()
    assert world.status.run
    assert world.status.run.trigger is Trigger.SOURCE_CHANGED


def test_a_look_that_is_asked_for_during_a_look_is_one_more() -> None:
    world = built(source=GIT)
    world.annotate(FLUX_RECONCILE_ANNOTATION, "push-1")
    world.settle()
    world.annotate(FLUX_RECONCILE_ANNOTATION, "push-2")
    world.settle()
    world.succeed_all(Role.CHECK)
    world.settle()
    assert len(checks(world)) == 1
    assert world.status.source
    assert world.status.source.checks == 1


def of_flux() -> World:
    world = built(source=OF_FLUX)
    assert world.status.run
    assert world.status.run.source
    assert world.status.run.source.paths == digest_of("1")
    return world


def test_a_revision_of_flux_is_looked_at_before_it_is_built() -> None:
    world = of_flux()
    first = world.status.run
    moved(world, relevant=False)
    world.settle()
    assert len(checks(world)) == 1
    world.succeed_all(Role.CHECK)
    world.settle()
    status = world.status
    assert status.run == first
    assert status.source
    assert (status.source.revision, status.source.skipped) == (f"main@sha1:{MOVED}", True)
    assert f"main@sha1:{MOVED} is not built" in ready(status)[1]
    assert world.decide().wake_after is None, "Flux tells of the next one"


def test_a_revision_of_flux_that_changes_one_of_them_is_built() -> None:
    world = of_flux()
    moved(world, relevant=True)
    world.settle()
    world.succeed_all(Role.CHECK)
    world.settle()
    run = world.status.run
    assert run
    assert run.source
    assert (run.trigger, run.source.revision) == (Trigger.SOURCE_CHANGED, f"main@sha1:{MOVED}")
    end(world)
    assert world.status.run
    assert world.status.run.result


def test_a_revision_that_can_not_be_looked_at_is_tried_again_after_a_minute() -> None:
    world = of_flux()
    moved(world, relevant=False)
    world.settle()
    world.fail(world.pod(Role.CHECK), Reason.SOURCE_UNREACHABLE)
    world.settle()
    assert checks(world) == []
    assert world.status.source
    assert world.status.source.reason is Reason.SOURCE_UNREACHABLE
    due(world)
    world.succeed_all(Role.CHECK)
    world.settle()
    assert world.status.source
    assert world.status.source.skipped
