"""An image that is built from the image of another build, and follows it."""

import pytest

from tests.support.tenant import AMD64, Status, Tenant, condition, inline

pytestmark = pytest.mark.e2e

CHILD = {"contexts": {"base": "multiarchbuild://base"}}


def said(tenant: Tenant, status: Status) -> str:
    """Return what both images have left in that of the child."""
    (image,) = status["image"]["platforms"]
    return tenant.images.file(f"{tenant.image()}@{image['digest']}", "/said")


def test_an_image_waits_for_its_parent_and_is_built_again_when_that_publishes(tenant: Tenant) -> None:
    source = inline("FROM base\nRUN echo child >> /said\n")
    child = tenant.build(source=source, build=CHILD, platforms=[AMD64])
    waiting = child.until(lambda status: condition(status, "Ready"), why="what it waits for")
    assert condition(waiting, "Ready")["reason"] == "ParentNotReady"
    assert "MultiArchBuild base does not exist in this namespace" in condition(waiting, "Ready")["message"]
    parent = tenant.build(
        "base",
        source=inline("FROM busybox:1.36\nRUN echo one > /said\n"),
        output={"image": tenant.image("base")},
        platforms=[AMD64],
    )
    first = child.succeeded()
    of_parent = parent.status["image"]["ref"]
    assert first["run"]["parents"] == [{"name": "base", "ref": of_parent}]
    assert said(tenant, first) == "one\nchild\n"
    parent.patch(source=inline("FROM busybox:1.36\nRUN echo two > /said\n"))
    second = child.succeeded(after=first["run"]["id"])
    assert second["run"]["trigger"] == "ParentPublished"
    assert second["run"]["cause"] == "MultiArchBuild base has published another image"
    assert said(tenant, second) == "two\nchild\n"
    parent.patch(suspend=True)
    note = child.until(
        lambda status: "is suspended" in condition(status, "Ready")["message"], why="what is wrong above"
    )
    assert condition(note, "Ready")["status"] == "True"
    assert child.status["run"]["id"] == second["run"]["id"]
    parent.patch(suspend=False, build={"contexts": {"top": "multiarchbuild://app"}})
    refused = parent.until(lambda status: condition(status, "Ready")["reason"] == "InvalidSpec", why="the cycle")
    assert "base → app → base" in condition(refused, "Ready")["message"]
