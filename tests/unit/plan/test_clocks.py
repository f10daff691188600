"""Nothing is decided by the clock of a node, whatever it shows."""

from datetime import timedelta

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.status import Result
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.publishing import GRACE
from multiarchbuild.plan.retention import LINGER
from tests.unit.plan.world import POLLED, World

WRONG = pytest.mark.parametrize("hours", [-24, -1, 0, 1, 24])


def world(hours: int, **fields: object) -> World:
    found = World(node_clock=timedelta(hours=hours))
    found.edit(**fields)
    found.settle()
    return found


def published(found: World) -> World:
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        found.succeed_all(role)
        found.settle()
    return found


@WRONG
def test_the_next_try_comes_after_its_pause(hours: int) -> None:
    w = world(hours)
    w.fail(w.pod(platform="linux/arm64"), Reason.REGISTRY_ERROR)
    w.settle()
    assert {pod_from(pod).attempt for pod in w.pods.values()} == {1}
    w.advance(4)
    w.settle()
    assert {pod_from(pod).attempt for pod in w.pods.values()} == {1}
    w.advance(1)
    w.settle()
    assert {pod_from(pod).attempt for pod in w.pods.values()} == {1, 2}


@WRONG
def test_the_next_look_at_a_source_comes_after_its_interval(hours: int) -> None:
    w = published(world(hours, source=POLLED))
    for checks in (1, 2):
        w.advance(50)
        w.settle()
        assert w.status.source is None or w.status.source.pod is None, "it is not due"
        w.advance(10)
        w.settle()
        w.succeed_all(Role.CHECK)
        w.settle()
        assert w.status.source
        assert w.status.source.checks == checks


@WRONG
def test_a_pod_that_lingers_is_deleted_in_time(hours: int) -> None:
    w = world(hours)
    w.sidecars = True
    w.succeed_all(Role.BUILD)
    w.settle()
    builders = {name for name, pod in w.pods.items() if pod_from(pod).role is Role.BUILD}
    w.advance(LINGER.total_seconds() - 1)
    w.settle()
    assert builders <= set(w.pods), "its log is kept until then"
    w.advance(1)
    w.settle()
    assert not builders & set(w.pods)


@WRONG
def test_a_publish_step_gets_its_grace_and_no_more(hours: int) -> None:
    w = world(hours)
    w.succeed(w.pod(platform="linux/amd64"))
    w.start(w.pod(platform="linux/arm64"))
    w.settle()
    publish = w.pod(Role.PUBLISH)
    w.start(publish)
    w.succeed_all(Role.BUILD)
    w.settle()
    assert pod_from(publish).built_annotation
    assert w.status.run
    w.annotate(CANCEL_ANNOTATION, w.status.run.id)
    w.advance(GRACE.total_seconds() - 1)
    w.settle()
    assert w.status.run.result is None, "it may have moved the tags"
    w.advance(200)
    w.settle()
    assert w.status.run.result is Result.CANCELLED


@WRONG
def test_the_newer_image_is_in_status(hours: int) -> None:
    w = published(world(hours))
    first = w.status.image
    assert first
    assert w.status.run
    assert timedelta() <= w.now - w.status.run.started_at
    w.node_clock = -w.node_clock
    w.advance(10)
    w.edit(build={"target": "other"})
    w.settle()
    second = published(w).status
    assert second.run
    assert second.image
    assert second.image.digest == w.published[second.run.id] != first.digest


def test_a_publish_step_that_left_a_tag_alone_is_tried_once_more_without_retries() -> None:
    w = world(0, retries=0)
    w.succeed_all(Role.BUILD)
    w.settle()
    w.fail(w.pod(Role.PUBLISH), Reason.TAG_MOVED)
    w.settle()
    w.advance(5)
    w.settle()
    assert pod_from(w.pod(Role.PUBLISH)).attempt == 2
    w.fail(w.pod(Role.PUBLISH), Reason.TAG_MOVED)
    w.settle()
    assert w.status.run
    assert w.status.run.result is Result.FAILED
