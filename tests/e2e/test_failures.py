"""What status says of builds that fail in ways that only a real BuildKit in a real pod has."""

import pytest

from tests.support.tenant import AMD64, ARM64, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e

PARALLEL = """\
FROM busybox:1.36 AS slow
RUN for i in 1 2 3 4 5 6 7 8 9; do echo "compiling $i"; done; sleep 60
FROM busybox:1.36 AS fails
RUN sleep 3; echo "the tests fail"; exit 7
FROM busybox:1.36
COPY --from=slow /etc/passwd /slow
COPY --from=fails /etc/passwd /fails
"""
CROSS = """\
FROM --platform=$BUILDPLATFORM busybox:1.36
ARG TARGETARCH
RUN echo "building for $TARGETARCH"; \\
    if [ "$TARGETARCH" = arm64 ]; then sleep 3; echo "arm64 is what fails"; exit 9; fi; \\
    for i in 1 2 3 4 5 6 7 8 9; do echo "compiling $i"; done; sleep 60
"""


def test_of_steps_in_parallel_the_one_that_failed_is_shown(tenant: Tenant) -> None:
    status = tenant.build(platforms=[AMD64], source=inline(PARALLEL)).failed("BuildFailed")
    entry = platform(status, AMD64)
    assert "exit 7 failed with exit code 7" in entry["message"]
    assert "the tests fail" in entry["logTail"]
    # The error repeats the command; what the other platform printed is not there.
    assert "compiling 1" not in entry["logTail"]
    assert entry["attempt"] == 1


def test_of_two_platforms_in_one_builder_the_one_that_failed_is_shown(tenant: Tenant) -> None:
    build = tenant.build(platforms=[AMD64, ARM64], source=inline(CROSS), scheduling={"strategy": "Cross"})
    entry = platform(build.failed("BuildFailed"), ARM64)
    assert "failed with exit code 9" in entry["message"]
    assert "arm64 is what fails" in entry["logTail"]
    # The error repeats the command; what the other platform printed is not there.
    assert "compiling 1" not in entry["logTail"]


def test_a_step_that_hangs_is_named_with_its_last_lines_when_the_time_is_over(tenant: Tenant) -> None:
    dockerfile = 'FROM busybox:1.36\nRUN echo "waiting for an answer"; sleep 3600\n'
    build = tenant.build(platforms=[AMD64], source=inline(dockerfile), timeout="40s")
    status = build.failed("TimedOut")
    entry = platform(status, AMD64)
    assert "sleep 3600 was still running" in condition(status, "Ready")["message"]
    assert entry["logTail"].splitlines()[-1] == "waiting for an answer"
    assert entry["attempt"] == 1


def test_a_run_that_leaves_a_process_behind_ends(tenant: Tenant) -> None:
    dockerfile = (
        "FROM busybox:1.36\n"
        'RUN sleep 86400 & echo "it holds the output"\n'
        "RUN (sleep 86399 </dev/null >/dev/null 2>&1 &) ; echo detached\n"
        # Process 1 of the builder looks once a second.
        "RUN sleep 3; if ps | grep 'sleep 8639[9]'; then exit 1; fi\n"
    )
    tenant.build(platforms=[AMD64], source=inline(dockerfile), timeout="90s").succeeded()


@pytest.fixture
def only_amd64(tenant: Tenant) -> str:
    """An image that was pushed for one architecture, as a plain manifest."""
    busybox = f"{tenant.target.facts.registry}/library/busybox"
    entries = tenant.images.manifest(f"{busybox}:1.36")["manifests"]
    (digest,) = [entry["digest"] for entry in entries if entry["platform"]["architecture"] == "amd64"]
    image = f"{tenant.image('base')}:1"
    tenant.images.copy(f"{busybox}@{digest}", image)
    return image


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM {base}\nCOPY Dockerfile /\n",
        "FROM scratch\nCOPY --from={base} / /\n",
        "FROM {base} AS one\nFROM scratch\nCOPY --from=one / /\n",
    ],
)
@pytest.mark.parametrize("strategy", ["Auto", "Cross"])
def test_files_of_another_architecture_are_not_published(
    tenant: Tenant, only_amd64: str, dockerfile: str, strategy: str
) -> None:
    source = inline(dockerfile.format(base=only_amd64))
    build = tenant.build(platforms=[AMD64, ARM64], source=source, scheduling={"strategy": strategy})
    entry = platform(build.failed("BaseImageNotFound"), ARM64)
    assert only_amd64 in entry["message"]
    assert "has no image for linux/arm64, only for linux/amd64" in entry["message"]


def test_files_of_another_architecture_are_published_where_the_dockerfile_says_so(
    tenant: Tenant, only_amd64: str
) -> None:
    source = inline(f"FROM --platform=linux/amd64 {only_amd64} AS one\nFROM scratch\nCOPY --from=one / /\n")
    tenant.build(platforms=[ARM64], source=source).succeeded()


def test_a_run_that_is_killed_for_memory_names_the_limit(tenant: Tenant) -> None:
    dockerfile = "FROM busybox:1.36\nRUN echo eating; head -c 900000000 /dev/zero | tail -c 900000000 > /dev/null\n"
    resources = {"limits": {"memory": "320Mi"}}
    build = tenant.build(platforms=[AMD64], source=inline(dockerfile), scheduling={"resources": resources}, retries=0)
    status = build.ended()
    ready = condition(status, "Ready")
    # Which process the kernel takes is its choice.
    assert ready["reason"] in {"OutOfMemory", "BuilderOutOfMemory"}
    assert "scheduling.resources.limits.memory" in ready["message"]
    assert "buildkitd" in ready["message"]
