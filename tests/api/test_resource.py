"""The resource on a real API server: what is accepted, filled in, stored and shown."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from multiarchbuild.api.conditions import Condition
from multiarchbuild.api.crd import crd
from multiarchbuild.api.identity import Identity
from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import (
    BaseImagesCheck,
    BuilderUse,
    CacheStatus,
    CacheVolumeUse,
    Columns,
    Comparison,
    FailedAttempt,
    HistoryEntry,
    ImagePlatform,
    ImageStatus,
    Mode,
    ParentImage,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceCheck,
    SourceStatus,
    Status,
    StepStatus,
    Trigger,
)
from tests.api.conftest import Kubectl
from tests.api.objects import MINIMAL, SOURCES, Object, base, build, changed

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = f"sha256:{'5' * 64}"
FAILED = FailedAttempt(attempt=1, reason=Reason.BUILDER_LOST, message="Gone.", node="node-2", finished_at=NOON)
STEP = StepStatus(
    pod="app-1-resolve-2",
    attempt=2,
    reuse=BuilderUse.KEPT,
    reason=Reason.RETRYING,
    message="Once more.",
    finished_at=NOON,
    failed_attempts=(FAILED,),
)
BASES = (f"docker.io/library/busybox:1.36@{DIGEST}",)
STATUS = Status(
    observed_generation=1,
    conditions=(
        Condition(
            type="Ready",
            status="True",
            reason="Succeeded",
            message="Published.",
            observed_generation=1,
            last_transition_time=NOON,
        ),
    ),
    image=ImageStatus(
        ref=f"registry.example.com/team-a/app@{DIGEST}",
        digest=DIGEST,
        published_at=datetime(2026, 11, 25, tzinfo=UTC),
        tags=("latest",),
        destinations=("mirror.example.com/team-a/app",),
        platforms=(ImagePlatform(platform="linux/amd64", digest=DIGEST, size=1234),),
        size=1234,
        signature=f"sha256:{'2' * 64}",
        signed_by=SignedBy(
            identity="https://kubernetes.io/namespaces/a/serviceaccounts/b", issuer="https://a.example.com"
        ),
        record=f"sha256:{'3' * 64}",
        bases=BASES,
    ),
    run=RunStatus(
        id="7c1f09ab",
        trigger=Trigger.SPEC_CHANGED,
        inputs="0" * 64,
        execution="1" * 64,
        request="2026-11-24T12:00:00Z",
        source=SourceStatus(
            commit="c" * 40,
            ref="main",
            author="A. Author <a@example.com>",
            time=NOON,
            digest=DIGEST,
            revision=f"main@sha1:{'c' * 40}",
            url="http://source-controller.flux-system.svc/app.tar.gz",
            paths="sha256:" + "7" * 64,
        ),
        bases=BASES,
        retry=1,
        cause="MultiArchBuild base has published another image",
        parents=(ParentImage(name="base", ref=f"registry.example.com/team-a/base@{DIGEST}"),),
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        queued_at=NOON,
        started_at=NOON,
        finished_at=NOON,
        comparison=Comparison(digest=DIGEST, changed="the base image busybox:1.36 is another"),
        result=Result.SUCCEEDED,
        reason=Reason.SUCCEEDED,
        message="Published.",
        resolve=STEP,
        platforms=(
            PlatformStatus(
                platform="linux/amd64",
                phase=Phase.SUCCEEDED,
                mode=Mode.NATIVE,
                reason=Reason.SUCCEEDED,
                message="Pushed.",
                node="node-1",
                pod="app-1-amd64-2",
                attempt=2,
                failed_attempts=(FAILED,),
                dequeued_at=NOON,
                started_at=NOON,
                finished_at=NOON,
                digest=DIGEST,
                pushed=DIGEST,
                record=DIGEST,
                cache=CacheStatus(hits=3, total=7),
                log_tail="#7 DONE 0.1s\n",
                warnings=("JSONArgsRecommended: JSON arguments recommended for CMD (line 4)",),
                builder=BuilderUse.NONE_KEPT,
                volume=CacheVolumeUse.USED,
                bases=BASES,
            ),
        ),
        publish=STEP,
    ),
    source=SourceCheck(
        last_checked_at=NOON,
        commit="c" * 40,
        digest="sha256:" + "6" * 64,
        revision=f"main@sha1:{'c' * 40}",
        skipped=True,
        requested="push-1",
        checks=3,
        pod="app-1-check-4",
        reason=Reason.GIT_UNREACHABLE,
        message="Not reachable.",
    ),
    base_images=BaseImagesCheck(
        last_checked_at=NOON,
        checks=1,
        pod="app-1-check-bases-2",
        reason=Reason.REGISTRY_UNREACHABLE,
        message="Not reachable.",
        requested="push-1",
        moved=BASES,
    ),
    columns=Columns(platforms="1/1", digest="5" * 12, duration="1m3s"),
    last_handled_reconcile_at="2026-11-24T12:00:00Z",
    history=(
        HistoryEntry(
            id="7c1f09ab",
            result=Result.SUCCEEDED,
            reason=Reason.SUCCEEDED,
            digest=DIGEST,
            record=DIGEST,
            cache=CacheStatus(hits=3, total=7),
            commit="c" * 40,
            started_at=NOON,
            finished_at=NOON,
        ),
    ),
)
"""A status with every field."""
PATHS = {"paths"}
"""Beside the kind of a source, for some kinds only."""


@pytest.mark.parametrize("source", SOURCES)
def test_an_object_with_every_field_is_stored_as_it_was_written(kube: Kubectl, source: str) -> None:
    assert kube.create(f"every-field-{source}", SOURCES[source])["spec"] == SOURCES[source]


@pytest.mark.parametrize("spec", SOURCES.values(), ids=SOURCES)
def test_these_objects_have_every_field(spec: Object) -> None:
    parsed = Spec.model_validate(spec)
    assert set(_absent(parsed)) == {*SOURCES, *PATHS} - spec["source"].keys()


def test_defaults_are_those_of_the_models(kube: Kubectl) -> None:
    stored = kube.create("minimal", MINIMAL)
    assert stored["spec"] == {
        **MINIMAL,
        "build": {"dockerfile": "Dockerfile", "network": "Default"},
        "output": {**MINIMAL["output"], "tags": ["latest"], "format": "Index"},
        "cache": {"mode": "Max", "import": True},
        "scheduling": {"strategy": "Auto", "nativeWait": "2m", "serviceAccountName": "default"},
        "attestations": {"provenance": "Min", "record": True},
        "reproducible": True,
        "retries": 2,
        "history": {"successful": 3, "failed": 3},
    }
    assert stored["status"] == {"observedGeneration": -1}
    assert MultiArchBuild.model_validate(stored).spec == Spec.model_validate(MINIMAL)


@pytest.mark.parametrize(
    "parts",
    [
        {
            "output": {**MINIMAL["output"], "format": "Manifest"},
            "attestations": {"provenance": "Disabled"},
        },
        {"source": {"git": {"url": "https://git.example.com/app", "subdirectory": "services"}}},
        {"source": {"git": {"url": "https://git.example.com/app", "keepGitDir": True}}},
    ],
    ids=["manifest", "subdirectory", "git-dir"],
)
def test_what_is_left_out_breaks_no_rule(kube: Kubectl, parts: Object, request: pytest.FixtureRequest) -> None:
    assert kube.create(f"left-out-{request.node.callspec.id}", {**MINIMAL, **parts})["spec"]


def test_a_git_source_defaults_to_the_default_branch(kube: Kubectl) -> None:
    spec = {**MINIMAL, "source": {"git": {"url": "https://git.example.com/app"}}}
    assert kube.create("default-branch", spec)["spec"]["source"]["git"]["ref"] == "HEAD"


ACCEPTED: tuple[tuple[str, Any], ...] = (
    (".platforms", ["linux/amd64", "linux/amd64/v3", "linux/arm64", "linux/arm/v7", "linux/386", "linux/riscv64"]),
    (".source.git.url", "http://git.example.com:8080/~user/app.git"),
    (".source.git.url", "ssh://git@git.example.com/team-a/app.git"),
    (".source.git.url", "ssh://git.example.com:2222/~user/app"),
    (".source.git.interval", "10s"),
    (".source.http.url", "http://files.example.com:8080/a/app.tar.gz?version=1&x=@"),
    (".source.oci.image", "registry:5000/team-a/source:v1"),
    (".source.oci", {"image": f"localhost:5000/source@sha256:{'a' * 64}"}),
    (".source.oci.interval", "1h"),
    (".source.flux.name", "app.v1"),
    (".source.git.ref", "v1.2.0-rc.1+build.7"),
    (".source.git.ref", "feature/JIRA-1_x"),
    (".source.git.ref", "fix/#12,a=b%20(größe)"),
    (".source.git.subdirectory", "a..b/.hidden"),
    (".source.inline.files", {".dockerignore": "", ".config/x": "", "..a/b": "", "src/@scope/a+b.js": ""}),
    (".source.inline.files", {"Dockerfile": "x" * 262_144}),
    (".build.target", "0"),
    (".build.args", {"_A1": "$(VAR) ${X} 'quoted' \"twice\", a=b\nnext line é"}),
    (".build.labels", {"org.opencontainers.image.title": ""}),
    (".build.contexts", {"docker.io/library/alpine:3.22": "https://example.com/base.git#main"}),
    (".output.image", "localhost/app"),
    (".output.image", "registry:5000/app"),
    (".output.image", "10.0.0.1:5000/a__b/c---d/e.f_g"),
    (".output.tags", []),
    (".output.tags", ["{ref}", "v{date}.{time}_{run}-{commit}"]),
    (".scheduling.strategy", "Cross"),
    (".scheduling.tolerations", [{"operator": "Exists"}]),
    (".scheduling.resources.limits", {"nvidia.com/gpu": 1, "ephemeral-storage": "1.5e9", "memory": ".5Gi"}),
    (".timeout", "100h"),
)


@pytest.mark.parametrize(("path", "value"), ACCEPTED, ids=[f"{path[1:]}-{n}" for n, (path, _) in enumerate(ACCEPTED)])
def test_what_is_right_is_accepted(accepted: dict[str, str], path: str, value: Any) -> None:
    assert accepted == {}
    Spec.model_validate(changed(base(path), path, value))


@pytest.fixture(scope="module")
def accepted(kube: Kubectl) -> dict[str, str]:
    """Return what the API server says against the values that are right."""
    return kube.refusals({f"right-{n}": changed(base(path), path, value) for n, (path, value) in enumerate(ACCEPTED)})


def test_an_unknown_field_is_refused_by_name(kube: Kubectl) -> None:
    misspelt = build("misspelt", {**MINIMAL, "build": {"dockerfil": "x"}, "output": {**MINIMAL["output"], "tag": "1"}})
    answer = kube.run("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(misspelt))
    assert answer.returncode != 0
    assert 'unknown field "spec.build.dockerfil"' in answer.stderr
    assert 'unknown field "spec.output.tag"' in answer.stderr


def test_a_missing_spec_is_refused(kube: Kubectl) -> None:
    manifest = build("empty", {})
    del manifest["spec"]
    assert "spec: Required value" in kube.run("create", "-f", "-", stdin=json.dumps(manifest)).stderr


def test_a_name_of_253_characters_is_accepted(kube: Kubectl) -> None:
    name = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
    assert len(name) == 253
    assert kube.create(name, MINIMAL)["metadata"]["name"] == name


def test_a_status_with_every_field_is_stored_whole(kube: Kubectl) -> None:
    assert set(_absent(STATUS)) == set()
    written = STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)
    kube.create("status", MINIMAL)
    kube("patch", "mab", "status", "--subresource=status", "--type=merge", "-p", json.dumps({"status": written}))
    stored = kube.get("status")
    assert stored["status"] == written
    assert MultiArchBuild.model_validate(stored).status == STATUS


def test_status_is_written_by_its_subresource_alone(kube: Kubectl) -> None:
    manifest = build("forged", MINIMAL) | {"status": {"columns": {"digest": "forged"}}}
    kube("apply", "-f", "-", stdin=json.dumps(manifest))
    assert kube.get("forged")["status"] == {"observedGeneration": -1}


def test_kubectl_get_shows_what_happened(kube: Kubectl) -> None:
    kube.create("shown", {**MINIMAL, "source": {"git": {"url": "https://git.example.com/app"}}})
    written = STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)
    kube("patch", "mab", "shown", "--subresource=status", "--type=merge", "-p", json.dumps({"status": written}))
    brief, wide = (kube("get", "mab", "shown", *options).splitlines() for options in ((), ("-o", "wide")))
    assert brief[0].split() == ["NAME", "READY", "REASON", "PLATFORMS", "DIGEST", "AGE"]
    assert brief[1].split()[:-1] == ["shown", "True", "Succeeded", "1/1", "5" * 12]
    assert wide[0].split()[-3:] == ["IMAGE", "COMMIT", "DURATION"]
    assert wide[1].split()[-3:] == ["registry.example.com/team-a/app", "c" * 40, "1m3s"]
    assert "multiarchbuild.multiarch.build/shown" in kube("get", "all", "-o", "name")


def test_kubectl_explain_tells_what_a_field_does(kube: Kubectl) -> None:
    told = " ".join(kube("explain", "mab.spec.output.tags").split())
    assert "FIELD: tags <[]string>" in told
    assert "Tags that move to the index once it is verified." in told


def test_the_rules_of_a_new_crd_stay_within_the_cost_budget(kube: Kubectl) -> None:
    # Rules are not checked again where they are already stored: hence a group of its own.
    manifest = yaml.safe_load(yaml.safe_dump(crd()).replace("multiarch.build", "cost.example.com"))
    kube("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))


def test_server_side_apply_shares_lists_between_appliers(kube: Kubectl) -> None:
    for manager, secret in (("first", "push"), ("second", "pull")):
        manifest = build("shared", {**MINIMAL, "output": {**MINIMAL["output"], "secretRefs": [{"name": secret}]}})
        kube("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=json.dumps(manifest))
    assert kube.get("shared")["spec"]["output"]["secretRefs"] == [{"name": "push"}, {"name": "pull"}]


def _absent(model: BaseModel) -> list[str]:
    """Return the names of fields, here and below, that were not set; no provider has all those of an identity."""
    if isinstance(model, Identity):
        return []
    absent = [name for name in type(model).model_fields if name not in model.model_fields_set]
    for value in vars(model).values():
        for part in value if isinstance(value, tuple) else (value,):
            absent += _absent(part) if isinstance(part, BaseModel) else ()
    return absent
