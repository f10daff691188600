"""Builders that stay after a run: what they save, what they never carry over, and that nothing depends on them."""

import json
from decimal import Decimal
from typing import Any

import pytest

from multiarchbuild.plan.quantities import quantity
from tests.support.gate import Gate
from tests.support.poll import until
from tests.support.tenant import AMD64, BOTH, Build, Tenant, await_idle, inline, platform

pytestmark = pytest.mark.e2e

DOCKERFILE = "FROM busybox:1.36\nRUN echo same > /same\nCOPY version /version\nRUN cat /version > /built\n"


def kept(tenant: Tenant, dockerfile: str = DOCKERFILE, **spec: Any) -> Build:
    """Make a build whose builders stay."""
    scheduling = {"keepBuilder": "10m", **spec.pop("scheduling", {})}
    spec = {"cache": {"repository": tenant.image("cache")}, "platforms": [AMD64], **spec}
    return tenant.build(source=inline(dockerfile, version="1"), scheduling=scheduling, **spec)


def test_a_changed_file_is_built_by_the_builders_that_have_stayed(tenant: Tenant) -> None:
    build = kept(tenant, platforms=BOTH)
    first = build.succeeded()
    for name in BOTH:
        assert platform(first, name)["builder"] == "NoneKept"
        await_idle(tenant, platform(first, name)["pod"])
    published = first["run"]["publish"]
    await_idle(tenant, published["pod"])
    build.patch(source=inline(DOCKERFILE, version="2"))
    second = build.succeeded(after=first["run"]["id"])
    assert published["reuse"] == "NoneKept"
    assert (second["run"]["publish"]["reuse"], second["run"]["publish"]["pod"]) == ("Kept", published["pod"])
    assert tenant.images.digest(tenant.image()) == second["image"]["digest"], "the tag was moved"
    for name in BOTH:
        before, after = platform(first, name), platform(second, name)
        assert after["builder"] == "Kept"
        assert after["pod"] == before["pod"]
        assert after["cache"]["hits"] == 1
        assert tenant.images.file(f"{tenant.image()}@{after['digest']}", "/built") == "2"


def test_where_nothing_has_changed_they_say_so_and_nothing_is_published(tenant: Tenant) -> None:
    build = kept(tenant, platforms=BOTH)
    first = build.succeeded()
    for name in BOTH:
        await_idle(tenant, platform(first, name)["pod"])
    build.rebuild()
    second = build.succeeded(after=first["run"]["id"])
    assert second["image"] == first["image"]
    assert [platform(second, name)["builder"] for name in BOTH] == ["Kept", "Kept"]
    assert "publish" not in second["run"]
    assert not [
        pod for pod in build.pods() if pod["metadata"]["name"].startswith(f"{build.name}-{second['run']['id']}")
    ]


def test_a_mistake_in_the_dockerfile_costs_no_builder(tenant: Tenant) -> None:
    build = kept(tenant)
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    build.patch(source=inline("FROM busybox:1.36\nRUN exit 7\n", version="2"))
    second = build.failed("BuildFailed", after=first["run"]["id"])
    assert platform(second, AMD64)["pod"] == pod
    await_idle(tenant, pod)
    build.patch(source=inline(DOCKERFILE, version="3"))
    third = build.succeeded(after=second["run"]["id"])
    assert (platform(third, AMD64)["builder"], platform(third, AMD64)["pod"]) == ("Kept", pod)


def requests_of(tenant: Tenant, pod: str) -> dict[str, tuple[Decimal | None, Decimal | None]]:
    """Return the CPU and memory that the kubelet has given each container of a pod."""
    status = json.loads(tenant.kubectl("get", "pod", pod, "-o", "json"))["status"]
    containers = [*status["containerStatuses"], *status["initContainerStatuses"]]
    given = {each["name"]: each["resources"]["requests"] for each in containers}
    return {name: amounts(each["cpu"], each["memory"]) for name, each in given.items()}


def amounts(cpu: str, memory: str) -> tuple[Decimal | None, Decimal | None]:
    return quantity(cpu), quantity(memory)


def test_a_builder_that_waits_requests_next_to_nothing_and_builds_with_what_it_had(tenant: Tenant, gate: Gate) -> None:
    resources = {"requests": {"cpu": "300m", "memory": "256Mi"}}
    dockerfile = f"FROM busybox:1.36\nCOPY version /\nRUN grep -q 1 /version || {gate.wait()}\n"
    build = kept(tenant, dockerfile, scheduling={"resources": resources})
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    idle = amounts("5m", "32Mi")
    until("it gives back what it had", lambda: requests_of(tenant, pod) == {"step": idle, "buildkitd": idle})
    build.patch(source=inline(dockerfile, version="2"))
    build.until(lambda status: platform(status, AMD64).get("phase") == "Running" and status["run"] != first["run"])
    busy = {"step": amounts("50m", "64Mi"), "buildkitd": amounts("300m", "256Mi")}
    until("it has it again", lambda: requests_of(tenant, pod) == busy)
    gate.open()
    assert platform(build.succeeded(after=first["run"]["id"]), AMD64)["pod"] == pod
    states = json.loads(tenant.kubectl("get", "pod", pod, "-o", "json"))["status"]
    assert not any(each["restartCount"] for each in states["containerStatuses"] + states["initContainerStatuses"])


def test_a_builder_that_is_killed_while_it_waits_is_not_missed(tenant: Tenant) -> None:
    build = kept(tenant)
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    tenant.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    build.patch(source=inline(DOCKERFILE, version="2"))
    entry = platform(build.succeeded(after=first["run"]["id"]), AMD64)
    assert entry["pod"] != pod
    assert entry["builder"] in {"NoneKept", "Refused"}
    assert entry["attempt"] == 1


def test_a_publish_pod_that_is_killed_while_it_waits_is_not_missed(tenant: Tenant) -> None:
    build = kept(tenant)
    first = build.succeeded()
    pod = first["run"]["publish"]["pod"]
    await_idle(tenant, platform(first, AMD64)["pod"])
    await_idle(tenant, pod)
    tenant.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    build.patch(source=inline(DOCKERFILE, version="2"))
    publish = build.succeeded(after=first["run"]["id"])["run"]["publish"]
    assert publish["pod"] != pod
    assert publish["reuse"] in {"NoneKept", "Refused"}
    assert publish["attempt"] == 1


def test_a_publish_pod_that_is_killed_when_it_is_asked_costs_no_attempt(tenant: Tenant, gate: Gate) -> None:
    """It waits for the other platform, which is still being built."""
    wait = f"grep -q 1 /version || [ $TARGETARCH = amd64 ] || {gate.wait()}"
    dockerfile = f"FROM busybox:1.36\nARG TARGETARCH\nCOPY version /\nRUN {wait}\n"
    build = kept(tenant, dockerfile, platforms=BOTH)
    first = build.succeeded()
    pod = first["run"]["publish"]["pod"]
    for each in (*(platform(first, name)["pod"] for name in BOTH), pod):
        await_idle(tenant, each)
    build.patch(source=inline(dockerfile, version="2"))
    build.until(lambda status: status["run"] != first["run"] and status["run"].get("publish", {}).get("pod") == pod)
    tenant.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    gate.open()
    publish = build.succeeded(after=first["run"]["id"])["run"]["publish"]
    assert publish["pod"] != pod
    assert (publish["reuse"], publish["attempt"]) == ("Lost", 1)


def test_a_builder_that_is_killed_while_it_builds_costs_no_attempt(tenant: Tenant, gate: Gate) -> None:
    build = kept(tenant, f"FROM busybox:1.36\nCOPY version /\nRUN grep -q 1 /version || {gate.wait()}\n")
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    dockerfile = build.get()["spec"]["source"]["inline"]["files"]["Dockerfile"]
    build.patch(source=inline(dockerfile, version="2"))
    build.until(lambda status: platform(status, AMD64).get("phase") == "Running" and status["run"] != first["run"])
    tenant.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    gate.open()
    entry = platform(build.succeeded(after=first["run"]["id"]), AMD64)
    assert (entry["builder"], entry["attempt"]) == ("Lost", 1)
    assert entry["pod"] != pod


def test_a_builder_whose_pod_would_be_another_is_recycled(tenant: Tenant) -> None:
    build = kept(tenant)
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    build.patch(scheduling={"resources": {"limits": {"memory": "3Gi"}}}, source=inline(DOCKERFILE, version="2"))
    entry = platform(build.succeeded(after=first["run"]["id"]), AMD64)
    assert entry["builder"] == "TemplateChanged"
    assert entry["pod"] != pod
    tenant.kubectl("wait", f"pod/{pod}", "--for=delete", "--timeout=60s")


LEAVES = r"""FROM busybox:1.36
COPY version /
RUN --mount=type=secret,id=token (cat /run/secrets/token; cat) > /dev/null < /dev/null; \
    (setsid sh -c 'while :; do sleep 1000; done' canary-daemon > /dev/null 2>&1 < /dev/null &); \
    for folder in /tmp /var/tmp /dev/shm; do echo canary > $folder/canary; done
"""
LOOKS = r"""FROM busybox:1.36
COPY version /
RUN { grep -al 'canary-daemo[n]' /proc/[0-9]*/cmdline; grep -al 'canary-secre[t]' /proc/[0-9]*/environ; \
    ls -d /tmp/canary /var/tmp/canary /dev/shm/canary /run/secrets; } > /seen 2> /dev/null; true
"""


def test_nothing_of_a_run_is_seen_by_the_next(tenant: Tenant) -> None:
    tenant.secret("token", token="canary-secret")
    secrets = [{"id": "token", "secretKeyRef": {"name": "token", "key": "token"}}]
    build = kept(tenant, LEAVES, build={"secrets": secrets})
    first = build.succeeded()
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    assert "canary-daemon" not in tenant.kubectl("exec", pod, "-c", "buildkitd", "--", "ps", "-o", "args")
    work = tenant.kubectl("exec", pod, "-c", "step", "--", "ls", "-A", "/run/mab/work")
    assert work.strip() == "", "no source, no credentials"
    build.patch(source=inline(LOOKS, version="2"))
    entry = platform(build.succeeded(after=first["run"]["id"]), AMD64)
    assert (entry["builder"], entry["pod"]) == ("Kept", pod)
    assert tenant.images.file(f"{tenant.image()}@{entry['digest']}", "/seen") == ""
