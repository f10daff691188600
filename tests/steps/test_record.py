"""What a real BuildKit and a real registry make of build records."""

import time
from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.answers import NONCE_ENV, REQUEST_ENV, read_record
from multiarchbuild.api.record import MEDIA_TYPE, RUN_ANNOTATION, BuilderRecord, BuildRecord, Why
from multiarchbuild.api.results import Published
from multiarchbuild.oci import referrers
from tests.steps.conftest import Faulty, Pod, Pods, Services
from tests.support.pace import slowness

DOCKERFILE = "FROM busybox:1.36\nARG SECRETIVE\nCOPY a /a\nRUN cat /a > /b\nCOPY b /$SECRETIVE\nCMD echo hi"


def inline(dockerfile: str, **files: str) -> dict[str, Any]:
    return {"inline": {"files": {"Dockerfile": dockerfile, **files}}}


def recorded(app: Pod, services: Services, *arguments: str) -> BuilderRecord:
    """Build and return what the builder has stored in the registry."""
    built = app.built(*arguments)
    assert built.record is not None
    return BuilderRecord.model_validate_json(services.client(app.image).small_blob(built.record))


def attached(app: Pod, services: Services, result: Published) -> BuildRecord:
    """Return the record that is attached to what was published."""
    client = services.client(app.image)
    (entry,) = referrers.listed(client, result.digest, MEDIA_TYPE)
    assert entry["digest"] == result.record
    assert entry["annotations"] == {RUN_ANNOTATION: "run1"}
    content = referrers.content(client, entry)
    assert content is not None
    return BuildRecord.model_validate_json(content)


def test_a_builder_stores_its_steps_and_why_they_ran(pod: Pods, services: Services) -> None:
    app = pod(source=inline(DOCKERFILE, a="1", b="1"), build={"args": {"SECRETIVE": "hunter22"}})
    ref = f"{services.registry}/{app.image}:cache"
    cache = (f"--cache-to={ref}", f"--cache-from={ref}")
    first = recorded(app, services, *cache)
    ran = {step.name: step for step in first.steps if step.why}
    assert {step.why for step in ran.values()} == {Why.NO_CACHE}
    assert list(ran) == ["[2/4] COPY a /a", "[3/4] RUN cat /a > /b", "[4/4] COPY b /$SECRETIVE"]
    assert 0 < ran["[3/4] RUN cat /a > /b"].seconds < first.phases["build"]
    assert first.transferred > 0
    (base,) = first.materials
    assert base.uri == "docker.io/library/busybox:1.36"
    assert base.digest.startswith("sha256:")
    (warning,) = first.warnings
    assert (warning.rule, warning.file, warning.line) == ("JSONArgsRecommended", "Dockerfile", 6)

    app.spec["source"] = inline(DOCKERFILE, a="changed", b="1")
    second = recorded(app, services, *cache)
    steps = {step.name: step for step in second.steps}
    assert second.cache_imported
    assert steps["[2/4] COPY a /a"].why is Why.FILES_CHANGED
    copied = second.steps.index(steps["[2/4] COPY a /a"])
    assert (steps["[3/4] RUN cat /a > /b"].why, steps["[3/4] RUN cat /a > /b"].because) == (Why.INPUT_RAN, copied)
    app.spec["cache"] = {"import": False}
    third = recorded(app, services, *cache)
    assert {step.why for step in third.steps if step.why} == {Why.CACHE_DISABLED}


def test_the_record_of_a_run_is_attached_to_its_index(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    built = app.built()
    result = app.run("publish", "--tag=latest", built={"linux/amd64": built.digest}, records=[built.record])
    assert isinstance(result, Published)
    record = attached(app, services, result)
    assert (record.name, record.namespace, record.run, record.digest) == ("app", "team", "run1", result.digest)
    (builder,) = record.builders
    assert builder.platforms == ("linux/amd64",)
    assert "[2/2] COPY Dockerfile /" in [step.name for step in builder.steps]
    assert builder.size == result.platforms[0].size
    assert record.phases["publish"] > 0


def test_a_run_whose_builders_have_stored_nothing_has_a_record_without_steps(pod: Pods) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    built = app.built()
    gone = f"sha256:{'0' * 64}"
    for record in (None, gone):
        result = app.run("publish", built={"linux/amd64": built.digest}, records=[record])
        assert isinstance(result, Published)
        assert result.record is not None


def test_none_is_stored_where_none_is_wanted(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"), attestations={"record": False})
    built = app.built()
    assert built.record is None
    result = app.run("publish", built={"linux/amd64": built.digest})
    assert isinstance(result, Published)
    assert result.record is None
    assert not referrers.listed(services.client(app.image), result.digest, MEDIA_TYPE)


def test_a_build_that_failed_prints_its_record_for_who_knows_the_nonce(
    pod: Pods, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nonce = "0" * 32
    monkeypatch.setenv(NONCE_ENV, nonce)
    monkeypatch.setenv(REQUEST_ENV, "app-run1-1")
    dockerfile = "FROM busybox:1.36\nRUN echo a line of the log | tr a-z A-Z\nRUN exit 7"
    pod(source=inline(dockerfile)).failed("build", "--platform=linux/amd64")
    log = capfd.readouterr().out
    content = read_record(log.splitlines(), nonce, "app-run1-1")
    record = BuilderRecord.model_validate_json(content)
    assert record.error == "BuildFailed"
    assert [step.name for step in record.steps if step.error] == ["[3/3] RUN exit 7"]
    assert "A LINE OF THE LOG" in log
    assert b"A LINE OF THE LOG" not in content


def test_a_registry_that_takes_no_records_fails_no_build(pod: Pods, services: Services, faulty: Faulty) -> None:
    """Publish uploads nothing but the record where there is no provenance to rewrite."""
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"), attestations={"provenance": "Disabled"})
    built = app.built()
    registry = faulty(fault=lambda method, _: (500, {}, b"") if method == "POST" else None)
    other = pod(source=app.spec["source"], attestations=app.spec["attestations"])
    other.spec["output"] = {"image": f"{registry.host}/{app.image}"}
    other.services = replace(services, others=({"host": registry.host, "plainHttp": True},))
    began = time.monotonic()
    result = other.run("publish", built={"linux/amd64": built.digest}, records=[built.record])
    assert isinstance(result, Published)
    assert result.record is None
    assert sum(asked.startswith("POST") for asked in registry.asked) == 1, "a record is not tried again"
    assert time.monotonic() - began < 10 * slowness()
