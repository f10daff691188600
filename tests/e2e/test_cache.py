"""What fresh builders share, and what a broken cache costs."""

import re
from datetime import datetime

import pytest

from tests.support.pace import slowness
from tests.support.tenant import AMD64, BOTH, Tenant, inline, platform

pytestmark = pytest.mark.e2e

DOCKERFILE = "FROM busybox:1.36\nRUN echo same > /same\nCOPY version /version\nRUN cat /version > /built\n"


def test_after_a_change_every_step_that_is_the_same_comes_from_the_cache(tenant: Tenant) -> None:
    cache = {"repository": tenant.image("cache"), "mode": "Max"}
    build = tenant.build(source=inline(DOCKERFILE, version="1"), cache=cache)
    first = build.succeeded()
    build.patch(source=inline(DOCKERFILE, version="2"))
    second = build.succeeded(after=first["run"]["id"])
    for name in BOTH:
        before, after = platform(first, name), platform(second, name)
        assert before["pod"] != after["pod"], "another builder, which has nothing of its own"
        assert before["cache"]["hits"] == 0
        assert after["cache"]["total"] == before["cache"]["total"]
        assert cached(tenant, after["pod"]) == {"RUN echo same > /same"}
        assert after["cache"]["hits"] == 1


def test_a_cache_that_does_not_answer_costs_seconds_and_no_build(tenant: Tenant, operator: str) -> None:
    silent(tenant, operator)
    repository = f"silent.{tenant.namespace}.svc:5000/cache"
    status = tenant.build(platforms=[AMD64], cache={"repository": repository, "mode": "Max"}).succeeded()
    entry = platform(status, AMD64)
    log = tenant.kubectl("logs", entry["pod"], "-c", "step", "--timestamps").splitlines()
    # What is said before and after the cache was waited for.
    (gave_up,) = [line for line in log if f"building without the cache at silent.{tenant.namespace}.svc:5000" in line]
    asked, answered = (datetime.fromisoformat(line.split()[0]) for line in (log[0], gave_up))
    assert (answered - asked).total_seconds() <= 10 * slowness()
    assert status["run"]["result"] == "Succeeded"


def cached(tenant: Tenant, pod: str) -> set[str]:
    """Return the instructions, but for FROM, that the log of a build says came from the cache."""
    log = tenant.kubectl("logs", pod, "-c", "step")
    names = dict(re.findall(r"^#(\d+) \[[^\]]*\d+/\d+\] (.*)$", log, re.MULTILINE))
    found = {names[number] for number in re.findall(r"^#(\d+) CACHED$", log, re.MULTILINE) if number in names}
    return {name for name in found if not name.startswith("FROM")}


def silent(tenant: Tenant, image: str) -> None:
    """Run something that takes connections and never says a word."""
    program = "import socket, time; s = socket.create_server(('', 5000), backlog=100); time.sleep(3600)"
    container = {
        "name": "silent",
        "image": image,
        "command": ["python3", "-c", program],
        "readinessProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1},
    }
    meta = {"name": "silent", "labels": {"app": "silent"}}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
    tenant.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
    service = {"selector": {"app": "silent"}, "ports": [{"port": 5000}]}
    tenant.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service})
    tenant.kubectl("wait", "pod/silent", "--for=condition=Ready", "--timeout=300s")
