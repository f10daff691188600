"""A base image that moves, and the image that follows it."""

import pytest

from tests.support.tenant import AMD64, Tenant, condition, inline

pytestmark = pytest.mark.e2e


def test_a_base_image_that_moves_starts_a_run_that_names_it(tenant: Tenant) -> None:
    base = f"{tenant.image('base')}:1"

    def publish(text: str) -> str:
        source = inline(f"FROM busybox:1.36\nRUN echo {text} > /said\n")
        made = tenant.build(f"base-{text}", source=source, output={"image": tenant.image("base"), "tags": ["1"]})
        return str(made.succeeded()["image"]["digest"])

    one = publish("one")
    rebuild = {"onBaseImage": {"interval": "24h"}}
    build = tenant.build(source=inline(f"FROM {base}\nRUN cat /said > /copy\n"), platforms=[AMD64], rebuild=rebuild)
    first = build.succeeded()
    assert first["image"]["bases"] == [f"{base}@{one}"]

    def ask(value: str) -> None:
        tenant.kubectl("annotate", "--overwrite", "mab", "app", f"reconcile.fluxcd.io/requestedAt={value}")

    ask("unmoved")
    asked = build.until(lambda status: status.get("baseImages", {}).get("lastCheckedAt"), why="a look")
    assert "moved" not in asked["baseImages"]
    assert asked["run"]["id"] == first["run"]["id"]
    two = publish("two")
    ask("moved")
    second = build.succeeded(after=first["run"]["id"])
    assert second["run"]["trigger"] == "BaseImageChanged"
    assert second["run"]["cause"] == f"base image {base} was {one[:19]} and is {two[:19]}"
    assert second["image"]["bases"] == [f"{base}@{two}"]
    (image,) = second["image"]["platforms"]
    assert tenant.images.file(f"{tenant.image()}@{image['digest']}", "/copy") == "two\n"
    assert condition(second, "Ready")["status"] == "True"
