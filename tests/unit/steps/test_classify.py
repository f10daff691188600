"""Each text in `buildctl/` is what buildctl 0.32.2 printed for the failure that the file's name says."""

from pathlib import Path

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.policy import SBOM_IMAGE
from multiarchbuild.steps.classify import classify
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.progress import Progress

TEXTS = Path(__file__).parent / "buildctl"
SPEC = Spec.model_validate(
    {
        "platforms": ["linux/amd64"],
        "source": {"inline": {"files": {"Dockerfile": ""}}},
        "output": {"image": "registry.test:5055/team/app"},
        "attestations": {"sbom": True},
    }
)

EXPECTED = {
    "no-dockerfile": (Reason.DOCKERFILE_NOT_FOUND, "'Dockerfile'"),
    "other-dockerfile": (Reason.DOCKERFILE_NOT_FOUND, "'sub/My.Dockerfile'"),
    "syntax": (Reason.DOCKERFILE_INVALID, "line 2: unknown instruction: RUNN (did you mean RUN?)"),
    "syntax-arg": (Reason.DOCKERFILE_INVALID, "COPY requires at least two arguments"),
    "empty": (Reason.DOCKERFILE_INVALID, "the Dockerfile cannot be empty"),
    "nofrom": (Reason.DOCKERFILE_INVALID, "no build stage in current context"),
    "target": (Reason.TARGET_NOT_FOUND, "no stage 'nope'"),
    "run1": (Reason.BUILD_FAILED, "[2/2] RUN echo x && exit 1 failed with exit code 1"),
    "run127": (Reason.BUILD_FAILED, "exit code 127"),
    "run137": (Reason.OUT_OF_MEMORY, "resources.limits.memory"),
    "exec-format": (Reason.BUILDER_UNSUPPORTED, "multiarch.build/qemu-<arch>=true"),
    "copy": (Reason.BUILD_FAILED, "the source has no '/nofile'"),
    "copyfrom": (Reason.BASE_IMAGE_NOT_FOUND, "docker.io/library/nostage:latest does not exist"),
    "base-missing": (Reason.BASE_IMAGE_NOT_FOUND, "docker.io/library/busybox:nosuch does not exist"),
    "context-missing": (Reason.BASE_IMAGE_NOT_FOUND, "registry.test:5055/none does not exist"),
    "no-platform": (Reason.BASE_IMAGE_NOT_FOUND, "has no image for this platform"),
    "base-denied": (Reason.BASE_IMAGE_DENIED, "registry.test:5056/x:latest may not be pulled"),
    "base-denied-token": (Reason.BASE_IMAGE_DENIED, "output.secretRefs"),
    "base-403": (Reason.BASE_IMAGE_DENIED, "403 Forbidden"),
    "base-500": (Reason.REGISTRY_ERROR, "500 Internal Server Error"),
    "base-429": (Reason.REGISTRY_ERROR, "429 Too Many Requests"),
    "base-refused": (Reason.REGISTRY_UNREACHABLE, "connection refused"),
    "base-nxdomain": (Reason.REGISTRY_UNREACHABLE, "no such host"),
    "base-x509": (Reason.CERTIFICATE_UNTRUSTED, "`registries[].caBundle` (for this registry only) or `caBundle`"),
    "frontend": (Reason.REGISTRY_UNREACHABLE, "no.such.invalid/dockerfile:1"),
    "secret-missing": (Reason.SECRET_NOT_FOUND, "id 'npm'"),
    "ssh-missing": (Reason.SECRET_NOT_FOUND, "build.ssh.secretRef"),
    "ssh-bad": (Reason.SECRET_INVALID, "private key"),
    "push-401": (Reason.PUSH_DENIED, "output.secretRefs"),
    "wrong-password": (Reason.PUSH_DENIED, "401 Unauthorized"),
    "push-token": (Reason.PUSH_DENIED, "output.secretRefs"),
    "push-403": (Reason.PUSH_DENIED, "denied"),
    "push-500": (Reason.REGISTRY_ERROR, "500 Internal Server Error"),
    "push-429": (Reason.REGISTRY_ERROR, "429 Too Many Requests"),
    "push-refused": (Reason.REGISTRY_UNREACHABLE, "connection refused"),
    "push-nx": (Reason.REGISTRY_UNREACHABLE, "no such host"),
    "push-x509": (Reason.CERTIFICATE_UNTRUSTED, "exporting to image failed: failed to push registry.test:6443/x/y"),
    "sbom-missing": (Reason.SBOM_GENERATOR_FAILED, "attestations.sbom: false builds without an SBOM"),
    "sbom-run3": (Reason.SBOM_GENERATOR_FAILED, "failed with exit code 3"),
    "sbom-nx": (Reason.REGISTRY_UNREACHABLE, "names in images.sbom, cannot be pulled"),
    "daemon-lost": (Reason.BUILDER_LOST, "buildkitd was lost"),
}

GENERATORS = {"sbom-nx": f"no.such.invalid/{SBOM_IMAGE}"}


def failure(name: str) -> StepError:
    progress = Progress()
    for line in (TEXTS / f"{name}.txt").read_text().splitlines():
        list(progress.feed(line))
    return classify(SPEC, progress, GENERATORS.get(name, SBOM_IMAGE))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_failure_has_its_reason_and_says_what_to_do(name: str) -> None:
    found, (reason, words) = failure(name), EXPECTED[name]
    assert (found.reason, words in found.message) == (reason, True), found.message


def test_every_collected_text_is_in_the_table() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == EXPECTED.keys()


def test_the_log_tail_ends_with_the_output_of_the_failing_run() -> None:
    tail = failure("run1").log_tail.splitlines()
    assert tail[0] == "x"
    assert ">>> RUN echo x && exit 1" in "\n".join(tail)


def test_what_is_not_known_is_told_in_the_words_of_buildctl() -> None:
    progress = Progress()
    list(progress.feed("error: something that nobody has seen before"))
    found = classify(SPEC, progress)
    assert found.reason is Reason.STEP_FAILED
    assert "something that nobody has seen before" in found.message
