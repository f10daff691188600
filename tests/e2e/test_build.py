"""The main job: one resource becomes one verified image for two platforms."""

from datetime import datetime

import pytest

from tests.support.tenant import AMD64, ARM64, BOTH, Tenant, inline, platform

pytestmark = pytest.mark.e2e


def test_both_platforms_are_built_at_the_same_time_on_their_own_nodes(tenant: Tenant) -> None:
    dockerfile = "FROM busybox:1.36\nRUN uname -m > /machine && sleep 3\n"
    status = tenant.build(source=inline(dockerfile)).succeeded()
    amd64, arm64 = (platform(status, name) for name in BOTH)
    assert {amd64["mode"], arm64["mode"]} == {"Native"}
    assert amd64["node"] != arm64["node"]
    start, end = (datetime.fromisoformat, datetime.fromisoformat)
    assert start(arm64["startedAt"]) < end(amd64["finishedAt"])
    assert start(amd64["startedAt"]) < end(arm64["finishedAt"])
    machines = {
        image["platform"]: tenant.images.file(f"{tenant.image()}@{image['digest']}", "/machine").strip()
        for image in status["image"]["platforms"]
    }
    assert machines == {AMD64: "x86_64", ARM64: "aarch64"}
