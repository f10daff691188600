"""A requested run for which nothing has changed: one small pod, the same digest, and nothing published."""

import pytest

from tests.support.tenant import BOTH, Tenant, inline, platform

pytestmark = pytest.mark.e2e


def test_one_pod_finds_that_nothing_has_changed_and_a_moved_tag_is_found_too(tenant: Tenant) -> None:
    cache = {"repository": tenant.image("cache")}
    build = tenant.build(source=inline("FROM busybox:1.36\nRUN uname -m > /machine\n"), cache=cache)
    first = build.succeeded()
    build.rebuild()
    second = build.succeeded(after=first["run"]["id"])
    assert second["image"] == first["image"]
    assert "nothing has changed" in second["run"]["message"]
    assert [platform(second, name)["builder"] for name in BOTH] == ["Unchanged", "Unchanged"]
    own = [pod for pod in build.pods() if pod["metadata"]["labels"]["multiarch.build/run"] == second["run"]["id"]]
    assert [pod["metadata"]["labels"]["multiarch.build/role"] for pod in own] == ["resolve"]

    other = tenant.build("other", source=inline("FROM busybox:1.36\nRUN echo other > /other\n")).succeeded()
    assert tenant.images.digest(f"{tenant.image()}:latest") == other["image"]["digest"]
    build.rebuild()
    third = build.succeeded(after=second["run"]["id"])
    assert f"latest is {other['image']['digest']}" in third["run"]["comparison"]["changed"]
    assert "publish" in third["run"]
    assert tenant.images.digest(f"{tenant.image()}:latest") == third["image"]["digest"]
