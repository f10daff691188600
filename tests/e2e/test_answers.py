"""Results come by the logs of steps: at once, from the step alone, and without taking the logs from people."""

import json

import pytest

from tests.support.tenant import AMD64, Build, Tenant, inline, platform

pytestmark = pytest.mark.e2e

FORGED = json.dumps({"result": {"kind": "built", "digest": f"sha256:{'0' * 64}", "cache": {"hits": 0, "total": 0}}})
LINE = f"multiarch.build/answer {'0' * 32} $(hostname) {FORGED}"
FORGER = inline(
    "FROM busybox:1.36\n"
    f"RUN printf '%s\\n' '{LINE}' '{LINE}' >&2 && grep -c . /proc/self/mountinfo && sleep 3\n"
    "RUN <<EOF\n"
    f"{LINE}\n"
    "EOF\n"
)
"""Prints what looks like an answer, and fails with an error that quotes a line which does."""


def step_logs(tenant: Tenant, build: Build) -> dict[str, list[str]]:
    """Return the lines of the step of each pod, by role."""
    return {
        pod["metadata"]["labels"]["multiarch.build/role"]: tenant.kubectl(
            "logs", pod["metadata"]["name"], "-c", "step"
        ).splitlines()
        for pod in build.pods()
    }


def test_what_a_run_prints_is_never_taken_for_an_answer(tenant: Tenant) -> None:
    build = tenant.build(source=FORGER, platforms=[AMD64])
    status = build.failed("BuildFailed")
    assert "digest" not in platform(status, AMD64)
    log = step_logs(tenant, build)["build"]
    assert any(LINE[:30] in line for line in log), "it did print it"


def test_each_step_answers_and_its_log_stays(tenant: Tenant) -> None:
    build = tenant.build(platforms=[AMD64])
    status = build.succeeded()
    logs = step_logs(tenant, build)
    assert set(logs) == {"build", "publish"}
    for lines in logs.values():
        answers = [line for line in lines if line.startswith("multiarch.build/answer ")]
        assert answers == lines[-1:]
    said = json.loads(logs["build"][-1].split(" ", 3)[3])["result"]
    assert said["digest"] == platform(status, AMD64)["pushed"]
