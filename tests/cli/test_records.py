"""Build records on a real cluster: left by each run, read by the command line."""

import json
import re

import pytest

from multiarchbuild.api.record import MEDIA_TYPE
from tests.cli.conftest import Plugin
from tests.support.tenant import BOTH, inline

pytestmark = pytest.mark.e2e

DOCKERFILE = "FROM busybox:1.36\nCOPY a /a\nRUN cat /a > /b && sleep 5\nCMD echo hi\n"
"""What costs most is told: longer than all else takes, also on a machine that is busy."""


def test_a_run_leaves_a_record_and_two_are_compared(plugin: Plugin) -> None:
    tenant = plugin.tenant
    plain = ["--plain-http"] if tenant.target.facts.registry_insecure else []
    build = tenant.build(source=inline(DOCKERFILE, a="1"), platforms=BOTH, cache={})
    before = build.succeeded()
    image = before["image"]
    manifest = tenant.images.manifest(f"{tenant.image()}@{image['record']}")
    assert manifest["artifactType"] == MEDIA_TYPE
    assert manifest["subject"]["digest"] == image["digest"]
    record = json.loads(tenant.images.blob(f"{tenant.image()}@{manifest['layers'][0]['digest']}"))
    assert [builder["platforms"] for builder in record["builders"]] == [[name] for name in BOTH]
    for builder in record["builders"]:
        assert builder["mode"] == "Native"
        assert {"schedule", "pull", "start", "build"} <= builder["phases"].keys()
        assert builder["warnings"][0]["line"] == 4
        assert any(step["name"] == "[3/3] RUN cat /a > /b && sleep 5" for step in builder["steps"])
    assert "publish" in record["phases"]

    first = before["run"]["id"]
    build.patch(build={"labels": {"org.example.number": "2"}})
    second = build.succeeded(after=first)["run"]["id"]
    build.patch(source=inline(DOCKERFILE, a="changed"))
    status = build.succeeded(after=second)
    assert status["history"][0]["record"] == status["image"]["record"] != image["record"]

    name = build.name
    told = plugin.out("compare", name, *plain)
    assert re.search(r"RUN cat /a > /b && sleep 5.*it builds on \[2/3\] COPY a /a, which ran: files", told), told
    back = json.loads(plugin.out("compare", f"{name}@{status['run']['id']}", f"{name}@{first}", "-o", "json", *plain))
    assert back["before"] == status["run"]["id"]
    assert "[3/3] RUN cat /a > /b && sleep 5" in plugin.out("status", name, "--steps", *plain)
    assert "Warning: JSONArgsRecommended" in plugin.out("inspect", name, *plain)


def test_a_run_that_failed_leaves_its_record_in_the_cluster(plugin: Plugin) -> None:
    build = plugin.tenant.build(
        source=inline("FROM busybox:1.36\nRUN sleep 1\nRUN exit 7\n"), platforms=BOTH, retries=0
    )
    build.failed("BuildFailed")
    told = plugin.out("status", build.name, "--steps")
    for platform in BOTH:
        assert re.search(rf"^{platform} Native", told, re.MULTILINE), told
    assert re.search(r"\[3/3\] RUN exit 7 +\d[\dms.]* +failed: .*exit code: 7", told), told
