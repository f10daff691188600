"""Each text in `buildctl/` is what buildctl printed for the failure in its name: see tests/steps/record.py."""

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import MAX_BYTES, Failure, dump, load
from multiarchbuild.api.spec import Spec
from multiarchbuild.steps.classify import Builder, _about_ids, _about_stages, classify
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.progress import Progress
from tests.steps.record import CASES, ERRORS, FOLDER, REGISTRY

EXPECTED: dict[str, tuple[Reason, str]] = {
    # Processes: never what they print, only how they end.
    "run-1": (Reason.BUILD_FAILED, "[2/2] RUN echo x && exit 1 failed with exit code 1"),
    "run-127": (Reason.BUILD_FAILED, "exit code 127"),
    "run-137": (Reason.OUT_OF_MEMORY, "raise scheduling.resources.limits.memory"),
    "run-long": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-no-newline": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-quotes": (Reason.BUILD_FAILED, "failed with exit code 4"),
    "run-says-disk-full": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-says-exec-format": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-says-401": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-says-memory": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-says-error": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-says-runtime": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-own-program": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-foreign": (Reason.BUILDER_UNSUPPORTED, "multiarch.build/qemu-s390x=true"),
    "run-disk-full": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "run-oom": (Reason.OUT_OF_MEMORY, "raise scheduling.resources.limits.memory"),
    # A program that meets a full disk says so itself; where BuildKit does, the node is to blame.
    "disk-full-run": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "disk-full-pull": (Reason.STEP_FAILED, "The node's disk is full"),
    "disk-full-context": (Reason.STEP_FAILED, "The node's disk is full"),
    "disk-full-copy": (Reason.STEP_FAILED, "The node's disk is full"),
    "run-high-id": (
        Reason.BUILD_FAILED,
        "If 1000660000 is a user or group id: ids above 65535 need isolation Privileged",
    ),
    # Of several, the one that failed by itself.
    "parallel": (Reason.BUILD_FAILED, "[fails 2/2] RUN echo the real reason; sleep 1; exit 7 failed with exit code 7"),
    "cross": (Reason.BUILD_FAILED, "failed with exit code 9"),
    "cross-both": (Reason.BUILD_FAILED, "failed with exit code 5"),
    # The Dockerfile
    "no-dockerfile": (Reason.DOCKERFILE_NOT_FOUND, "'other/My.Dockerfile'"),
    "folder": (Reason.DOCKERFILE_NOT_FOUND, "'docker' is a folder in the source: build.dockerfile names a file"),
    "empty": (Reason.DOCKERFILE_INVALID, "the Dockerfile cannot be empty"),
    "only-comment": (Reason.DOCKERFILE_INVALID, "file with no instructions"),
    "no-from": (Reason.DOCKERFILE_INVALID, "no build stage in current context"),
    "syntax-error": (Reason.DOCKERFILE_INVALID, "line 2: unknown instruction: RUNN (did you mean RUN?)"),
    "bad-copy": (Reason.DOCKERFILE_INVALID, "COPY requires at least two arguments"),
    "blank-base": (Reason.DOCKERFILE_INVALID, "base name ($BASE) should not be blank"),
    "bad-base": (Reason.DOCKERFILE_INVALID, "must be lowercase"),
    "bad-platform": (Reason.DOCKERFILE_INVALID, "cannot parse platform specifier"),
    "bad-flag": (Reason.DOCKERFILE_INVALID, "unknown flag: --nonsense"),
    "bad-check": (Reason.DOCKERFILE_INVALID, 'invalid check option "nonsense"'),
    "circular": (Reason.DOCKERFILE_INVALID, "circular dependency"),
    "binary": (Reason.DOCKERFILE_INVALID, "unknown instruction"),
    "target": (Reason.TARGET_NOT_FOUND, "no stage 'prodction' (did you mean production?): correct build.target"),
    "check-error": (Reason.DOCKERFILE_INVALID, "JSONArgsRecommended: JSON arguments recommended for CMD"),
    "warnings": (Reason.BUILD_FAILED, "failed with exit code 1"),
    "security-insecure": (Reason.DOCKERFILE_INVALID, "security.insecure, which builders do not grant"),
    "network-host": (Reason.DOCKERFILE_INVALID, "network.host, which builders do not grant"),
    # Secrets and files
    "secret-too-big": (Reason.SECRET_INVALID, "The Secret 'big-bundle' of build.secrets (id 'bundle') is too large"),
    "secret-missing": (Reason.SECRET_NOT_FOUND, "id 'npm'"),
    "ssh-missing": (Reason.SECRET_NOT_FOUND, "build.ssh.secretRef"),
    "ssh-bad": (Reason.SECRET_INVALID, "private key"),
    "copy-missing": (Reason.BUILD_FAILED, "the source has no '/nofile'"),
    "copy-ignored": (Reason.BUILD_FAILED, "the source has no '/file' (a .dockerignore may leave it out)"),
    "copy-from-missing-file": (Reason.BUILD_FAILED, "lstat /none: no such file or directory"),
    # Base images
    "base-missing": (Reason.BASE_IMAGE_NOT_FOUND, f"{REGISTRY}/library/none:1 does not exist"),
    "base-tag-401": (Reason.BASE_IMAGE_NOT_FOUND, f"{REGISTRY}/library/none:401 does not exist"),
    "base-typo": (Reason.BASE_IMAGE_NOT_FOUND, "docker.io/library/bsuybox:1.36 does not exist"),
    "base-401": (Reason.BASE_IMAGE_DENIED, f"{ERRORS}/status-401/x:latest may not be pulled"),
    "base-403": (Reason.BASE_IMAGE_DENIED, "403 Forbidden; denied: the registry says denied"),
    "base-429": (Reason.REGISTRY_ERROR, "429 Too Many Requests"),
    "base-500": (Reason.REGISTRY_ERROR, "500 Internal Server Error"),
    "base-token-denied": (Reason.BASE_IMAGE_DENIED, "output.secretRefs"),
    "base-refused": (Reason.REGISTRY_UNREACHABLE, "connection refused"),
    "base-no-name": (Reason.REGISTRY_UNREACHABLE, "no such host"),
    "base-no-match": (Reason.BASE_IMAGE_NOT_FOUND, "has no image for this platform"),
    "base-not-an-image": (Reason.BUILD_FAILED, "load metadata for"),
    "copy-from-image-missing": (Reason.BASE_IMAGE_NOT_FOUND, f"{REGISTRY}/none:latest does not exist"),
    "context-missing": (Reason.BASE_IMAGE_NOT_FOUND, f"{REGISTRY}/none does not exist"),
    # ADD
    "add-503": (Reason.SOURCE_UNREACHABLE, f"ADD http://{ERRORS}/add/503 failed"),
    "add-404": (Reason.BUILD_FAILED, "invalid response status 404"),
    "add-refused": (Reason.SOURCE_UNREACHABLE, "connection refused"),
    "add-checksum": (Reason.BUILD_FAILED, "digest mismatch"),
    "add-git-missing": (Reason.BUILD_FAILED, f"repository 'http://{ERRORS}/add/404.git/' not found"),
    # Frontends and SBOMs
    "frontend-missing": (Reason.FRONTEND_UNAVAILABLE, f"The frontend {REGISTRY}/docker/dockerfile:1"),
    "frontend-no-name": (Reason.REGISTRY_UNREACHABLE, "The frontend no.such.invalid/dockerfile:1"),
    "frontend-500": (Reason.REGISTRY_ERROR, "500 Internal Server Error"),
    "sbom-missing": (Reason.SBOM_GENERATOR_FAILED, "attestations.sbom: false builds without an SBOM"),
    "sbom-no-name": (Reason.REGISTRY_UNREACHABLE, "names in images.sbom, cannot be pulled"),
    # Pushing
    "push-401": (Reason.PUSH_DENIED, "output.secretRefs"),
    "push-403": (Reason.PUSH_DENIED, "denied"),
    "push-404": (Reason.REGISTRY_ERROR, "name_unknown"),
    "push-400": (Reason.REGISTRY_REFUSED, "400 Bad Request"),
    "push-413": (Reason.REGISTRY_REFUSED, "413 Request Entity Too Large"),
    "push-429": (Reason.REGISTRY_ERROR, "429 Too Many Requests"),
    "push-500": (Reason.REGISTRY_ERROR, "500 Internal Server Error"),
    "push-token-denied": (Reason.PUSH_DENIED, "output.secretRefs"),
    "push-refused": (Reason.REGISTRY_UNREACHABLE, "connection refused"),
    "push-no-name": (Reason.REGISTRY_UNREACHABLE, "no such host"),
    # What carries it
    "daemon-killed": (Reason.BUILDER_LOST, "buildkitd was lost"),
}
BUILT = {"base-other-architecture"}
"""What BuildKit builds and only warns of: `test_platforms.py` reads it."""
UNTRUSTED = "tls: failed to verify certificate: x509: certificate signed by unknown authority"


def fed(text: str, only: str = "linux/amd64") -> Progress:
    progress = Progress(only)
    for line in text.splitlines():
        list(progress.feed(line))
    return progress


def spec_of(name: str) -> Spec:
    case = CASES[name]
    spec: dict[str, Any] = {
        "platforms": list(case.platforms),
        "source": {"inline": {"files": {"Dockerfile": ""}}},
        "output": {"image": case.image},
        "attestations": {"sbom": bool(case.sbom)},
        **case.spec,
    }
    if case.secrets:
        spec["build"] = {"secrets": [{"id": "bundle", "secretKeyRef": {"name": "big-bundle", "key": "bundle"}}]}
    return Spec.model_validate(spec)


def failure(name: str) -> StepError:
    case = CASES[name]
    only = case.platforms[0] if len(case.platforms) == 1 else ""
    builder = Builder(tuple(case.platforms), "amd64", case.sbom, small_ids=True)
    return classify(spec_of(name), fed((FOLDER / f"{name}.txt").read_text(), only), builder)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_failure_has_its_reason_and_says_what_to_do(name: str) -> None:
    found, (reason, words) = failure(name), EXPECTED[name]
    assert (found.reason, words in found.message) == (reason, True), f"{found.reason}: {found.message}"


def test_every_case_is_recorded_and_in_the_table() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == CASES.keys()
    assert EXPECTED.keys() | BUILT == CASES.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_every_failure_fits_into_a_termination_message_with_the_error_in_its_tail(name: str) -> None:
    found = failure(name)
    document = dump(Failure(reason=found.reason, message=found.message, log_tail=found.log_tail))
    assert len(document) <= MAX_BYTES
    read = load(document.decode())
    assert isinstance(read, Failure)
    assert read.log_tail == found.log_tail
    assert any(line.startswith("error: ") for line in read.log_tail.splitlines())


def test_the_tail_is_of_the_step_that_failed_and_not_of_those_that_were_cancelled() -> None:
    tail = failure("parallel").log_tail
    assert "the real reason" in tail
    assert "slow 9" not in tail
    assert "the tests of amd64v2 fail" in failure("cross").log_tail
    assert "compiling 9" not in failure("cross").log_tail


def test_the_tail_has_the_last_words_of_a_program_whose_run_is_long() -> None:
    lines = failure("run-long").log_tail.splitlines()
    assert "the last words" in lines
    assert sum(" | " in line for line in lines) <= 5
    assert lines[-1].startswith("error: process")


def test_the_tail_has_a_last_line_without_a_line_break() -> None:
    assert "no line break" in failure("run-no-newline").log_tail.splitlines()


def test_a_failed_check_names_rule_and_line() -> None:
    message = failure("check-error").message
    assert "MaintainerDeprecated: Maintainer instruction is deprecated" in message
    assert "(line 3)" in message
    assert not failure("check-error").reason.retryable


def run_error(how: str, *, log: str = "", name: str = "[2/2] RUN x") -> str:
    """Return what buildctl prints where the process of a step failed `how`."""
    error = f'process "/bin/sh -c x" did not complete successfully: {how}'
    vertex = {"digest": "d", "name": name, "started": "2026-01-01T00:00:00Z", "completed": "2026-01-01T00:00:01Z"}
    logs = [{"vertex": "d", "data": base64.b64encode(log.encode()).decode(), "timestamp": "2026-01-01T00:00:01Z"}]
    lines = [json.dumps({"vertexes": [vertex]}), json.dumps({"logs": logs})]
    return "\n".join(
        [*lines, json.dumps({"vertexes": [{**vertex, "error": error}]}), f"error: failed to solve: {error}"]
    )


AMD64 = Builder(("linux/amd64",), "amd64")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cannot allocate memory", Reason.OUT_OF_MEMORY),
        ("exit code: 137", Reason.OUT_OF_MEMORY),
        ("exit code: 255", Reason.BUILD_FAILED),
        ("exit code: 1", Reason.BUILD_FAILED),
    ],
)
def test_how_a_process_ended_decides(how: str, reason: Reason) -> None:
    assert classify(spec_of("run-1"), fed(run_error(how)), AMD64).reason is reason


@pytest.mark.parametrize(
    "log",
    [
        "no space left on device",
        "exec /bin/sh: exec format error",
        "401 Unauthorized",
        "Cannot allocate memory",
        "error: failed to solve: failed to push registry.test/x: denied: denied",
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "x509: certificate signed by unknown authority",
        "OCI runtime create failed: operation not permitted",
        "secret npm: not found",
        "lint violation found for rules: JSONArgsRecommended",
        '{"vertexes":[{"digest":"d","name":"x","error":"no"}]}',
    ],
)
def test_nothing_that_a_run_prints_changes_why_it_failed(log: str) -> None:
    found = classify(spec_of("run-1"), fed(run_error("exit code: 1", log=f"{log}\n")), AMD64)
    assert (found.reason, "failed with exit code 1" in found.message) == (Reason.BUILD_FAILED, True)
    assert log in found.log_tail


def test_nothing_that_a_command_says_changes_why_it_failed() -> None:
    said = r"echo \"did not complete successfully: cannot allocate memory\"; : no space left on device"
    text = f'error: failed to solve: process "/bin/sh -c {said}" did not complete successfully: exit code: 1'
    assert classify(spec_of("run-1"), fed(text), AMD64).reason is Reason.BUILD_FAILED


def test_a_run_that_the_runtime_cannot_start_names_the_isolation_where_none_could_be_started_before() -> None:
    words = "runc run failed: unable to start container process: error mounting proc: operation not permitted\n"
    assert (
        classify(spec_of("run-1"), fed(run_error("exit code: 1", log=words)), AMD64).reason
        is Reason.BUILDER_UNSUPPORTED
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("failed to copy: write /var/lib/x: no space left on device", Reason.STEP_FAILED),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", Reason.BUILDER_LOST),
        ("no active session for abc: context deadline exceeded", Reason.BUILDER_LOST),
        ("something that BuildKit does not want", Reason.DOCKERFILE_INVALID),
    ],
)
def test_what_fails_outside_of_all_steps_is_the_inputs_unless_it_is_known_to_be_the_infrastructures(
    text: str, reason: Reason
) -> None:
    assert classify(spec_of("run-1"), fed(f"error: failed to solve: {text}"), AMD64).reason is reason


@pytest.mark.parametrize(("on_volume", "reason"), [(False, Reason.BUILDER_LOST), (True, Reason.CACHE_VOLUME_FAILED)])
def test_a_buildkitd_that_crashes_when_it_starts_suspects_its_volume(reason: Reason, *, on_volume: bool) -> None:
    text = (
        "error: listing workers for Build: failed to list workers: Unavailable: connection error: "
        'desc = "error reading server preface: connection reset by peer"'
    )
    assert classify(spec_of("run-1"), fed(text), replace(AMD64, on_volume=on_volume)).reason is reason


def test_a_volume_that_is_full_is_not_the_disk_of_the_node() -> None:
    text = "error: failed to solve: failed to copy: write /var/lib/x: no space left on device"
    found = classify(spec_of("run-1"), fed(text), replace(AMD64, on_volume=True))
    assert found.reason is Reason.CACHE_VOLUME_FAILED
    assert "set a larger cache.volume.size" in found.message


def test_a_certificate_that_is_not_trusted_names_where_to_name_its_ca() -> None:
    error = f'failed to do request: Head "https://r.test/v2/x/manifests/1": {UNTRUSTED}'
    vertex = {"digest": "d", "name": "[internal] load metadata for r.test/x:1", "error": error}
    found = classify(
        spec_of("run-1"), fed(f"{json.dumps({'vertexes': [vertex]})}\nerror: failed to solve: r.test/x:1: {error}")
    )
    assert found.reason is Reason.CERTIFICATE_UNTRUSTED
    assert "`registries[].caBundle` (for this registry only) or `caBundle`" in found.message


LAYER = "failed to compute cache key: failed to copy: httpReadSeeker: failed open: "
BLOB = "http://r.test/v2/library/busybox/blobs/sha256:83d769cc?ns=docker.io"


@pytest.mark.parametrize("step", ["[2/2] RUN sleep 1", "[2/3] COPY --from=base /a /b", "[stage-1 3/4] WORKDIR /x"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            f'{LAYER}failed to do request: Get "{BLOB}": dial tcp 10.0.0.2:5000: connect: connection refused',
            Reason.REGISTRY_UNREACHABLE,
        ),
        (f"{LAYER}unexpected status from GET request to {BLOB}: 503 Service Unavailable", Reason.REGISTRY_ERROR),
        (f"{LAYER}unexpected status from GET request to {BLOB}: 401 Unauthorized", Reason.REGISTRY_ERROR),
        (f"{LAYER}content at {BLOB} not found: not found", Reason.REGISTRY_ERROR),
        ('failed to load cache key: failed to do request: Head "https://r.test/v2/": EOF', Reason.REGISTRY_UNREACHABLE),
        ("failed to compute cache key: something of the Dockerfile", Reason.BUILD_FAILED),
    ],
)
def test_a_layer_that_a_step_needs_and_its_registry_does_not_give_is_not_the_dockerfiles_fault(
    step: str, error: str, reason: Reason
) -> None:
    vertex = {"digest": "d", "name": step, "error": error}
    text = f"{json.dumps({'vertexes': [vertex]})}\nerror: failed to solve: {error}"
    found = classify(spec_of("run-1"), fed(text), AMD64)
    assert found.reason is reason
    assert found.message.startswith(f"{step} failed: ")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("denied: wrong password", Reason.PUSH_DENIED),
        ("unauthorized: authentication required", Reason.PUSH_DENIED),
        ("unavailable: the provider is away", Reason.REGISTRY_ERROR),
        ("toomanyrequests: slow down", Reason.REGISTRY_ERROR),
        ("something else", Reason.PUSH_DENIED),
    ],
)
def test_a_token_that_is_not_handed_out_is_denied_unless_its_server_is_away(code: str, reason: Reason) -> None:
    error = f"failed to push r.test/x: failed to authorize: failed to fetch oauth token: {code}"
    vertex = {"digest": "d", "name": "exporting to image", "error": error}
    text = f"{json.dumps({'vertexes': [vertex]})}\nerror: failed to solve: {error}"
    assert classify(spec_of("run-1"), fed(text), AMD64).reason is reason


def test_what_buildctl_itself_fails_with_is_told_in_its_words_and_tried_again() -> None:
    found = classify(spec_of("run-1"), fed("error: something that nobody has seen before"))
    assert found.reason is Reason.STEP_FAILED
    assert "something that nobody has seen before" in found.message


@pytest.mark.parametrize("source", [{"git": {"url": "https://git.test/x.git"}}, {"oci": {"image": "r.test/x:1"}}])
def test_a_dockerfile_that_is_missing_leads_to_the_folder_of_that_kind_of_source(source: dict[str, Any]) -> None:
    spec = Spec.model_validate({"platforms": ["linux/amd64"], "source": source, "output": {"image": "r.test/app"}})
    text = "error: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory"
    found = classify(spec, fed(text))
    assert f"source.{next(iter(source))}.subdirectory" in found.message
    assert "inline" not in found.message


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ("RUN mkdir /d && chown 1000660000:0 /d", "1000660000"),
        ("RUN useradd -u 100000 app", "100000"),
        ("RUN chown app /d && wget http://r.test/build/20261126/x; exit 1", ""),
        ("RUN head -c 300000 /dev/zero; exit 9", ""),
        ("RUN chown 1000:1000 /d", ""),
    ],
)
def test_only_what_is_given_to_a_user_is_taken_for_an_id(step: str, named: str) -> None:
    failed: Any = SimpleNamespace(error=SimpleNamespace(name=step), builder=SimpleNamespace(small_ids=True))
    hint = _about_ids(failed)
    assert hint.startswith(f" If {named} is a user or group id") if named else not hint


@pytest.mark.parametrize(
    ("image", "stage"),
    [
        ("docker.io/library/bulid:latest", "bulid"),
        ("bulid", "bulid"),
        ("docker.io/library/busybox:none", ""),
        ("registry.test/team/app:latest", ""),
    ],
)
def test_a_name_without_more_may_have_been_meant_as_a_stage(image: str, stage: str) -> None:
    hint = _about_stages(image)
    assert hint.startswith(f" If {stage} was meant to be a stage") if stage else not hint
