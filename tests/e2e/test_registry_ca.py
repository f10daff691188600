"""A registry whose certificate a CA of its own has signed: pods trust it only where the policy says so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.target import Target
from tests.cluster.facts import SecureRegistry
from tests.support.images import docker_config
from tests.support.operator_process import OperatorProcess, in_place_of_the_installed
from tests.support.tenant import AMD64, BOTH, Build, Status, Tenant, inline, platform

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

REASON = "CertificateUntrusted"
UNKNOWN = "let the operator's policy name that CA in `registries[].caBundle` (for this registry only) or `caBundle`"


@pytest.fixture
def process(target: Target, operator: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator as a process, in place of the installed one, without a CA for everything."""
    del operator
    with in_place_of_the_installed(target, tmp_path) as process:
        process.change_policy(caBundle="")
        yield process


@pytest.fixture
def secure(tenant: Tenant) -> SecureRegistry:
    """The registry, with a base image in it, and its credentials in the namespace."""
    secure = tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("needs a registry with a CA of its own, which the local cluster has")
    tenant.secret("registry", "kubernetes.io/dockerconfigjson", __dockerconfigjson=docker_config(secure))
    tenant.images.copy(f"{tenant.target.facts.registry}/library/busybox:1.36", base(tenant, secure))
    return secure


def base(tenant: Tenant, secure: SecureRegistry) -> str:
    return f"{secure.host}/{tenant.namespace}/base:1"


def build(tenant: Tenant, name: str, image: str, dockerfile: str, **spec: Any) -> Build:
    output = {"image": image, "secretRefs": [{"name": "registry"}]}
    return tenant.build(name, source=inline(dockerfile, version="1"), output=output, **spec)


def untrusted(build: Build) -> str:
    """Wait until the build has failed, at once and for good, and return why."""
    status: Status = build.failed(REASON)
    entry = platform(status, AMD64)
    assert entry["attempt"] == 1, "no other try finds another certificate"
    assert UNKNOWN in entry["message"], entry["message"]
    return str(entry["message"])


def test_the_ca_of_one_registry_serves_push_pull_cache_and_index(
    tenant: Tenant, secure: SecureRegistry, process: OperatorProcess
) -> None:
    ca = {"host": secure.host, "caBundle": Path(secure.ca).read_text()}
    process.change_policy(registries=[*tenant.target.registries, ca])
    process.start()
    image, repository = (f"{secure.host}/{tenant.namespace}/{name}" for name in ("app", "cache"))
    dockerfile = f"FROM {base(tenant, secure)}\nRUN uname -m > /machine\nCOPY version /version\n"
    made = build(tenant, "app", image, dockerfile, cache={"repository": repository, "mode": "Max"})
    first = made.succeeded()
    assert tenant.images.digest(f"{image}:latest") == first["image"]["digest"]
    machines = {
        each["platform"]: tenant.images.file(f"{image}@{each['digest']}", "/machine").strip()
        for each in first["image"]["platforms"]
    }
    assert machines == dict(zip(BOTH, ("x86_64", "aarch64"), strict=True))
    made.patch(source=inline(dockerfile, version="2"))
    second = made.succeeded(after=first["run"]["id"])
    assert {platform(second, name)["cache"]["hits"] for name in BOTH} == {1}, "the RUN, from the cache in that registry"
    # Where another registry is meant, that CA counts for nothing.
    other = Path(process.policy).read_text().replace(secure.host, "other.example.com")
    process.kill()
    process.policy.write_text(other)
    process.start()
    made.rebuild()
    assert made.ended(after=second["run"]["id"])["run"]["reason"] == REASON


def test_without_it_each_use_says_what_to_do(tenant: Tenant, secure: SecureRegistry, process: OperatorProcess) -> None:
    process.start()
    own, tiny = f"{secure.host}/{tenant.namespace}/app", "FROM busybox:1.36\nRUN uname -m > /machine\n"
    pushed = build(tenant, "pushed", own, tiny, platforms=[AMD64])
    pulled = build(tenant, "pulled", tenant.image("pulled"), f"FROM {base(tenant, secure)}\n", platforms=[AMD64])
    cache = {"repository": f"{own}-cache", "mode": "Max"}
    cached = build(tenant, "cached", tenant.image("cached"), tiny, platforms=[AMD64], cache=cache)
    assert f"{secure.host} cannot be reached: its certificate cannot be verified: " in untrusted(pushed)
    message = untrusted(pulled)
    assert f"load metadata for {base(tenant, secure)} failed: " in message
    assert "certificate signed by unknown authority" in message
    # A cache is no reason to fail, but the log says why there is none.
    log = tenant.kubectl("logs", platform(cached.succeeded(), AMD64)["pod"], "-c", "step")
    assert f"building without the cache at {secure.host}: {secure.host} cannot be reached: its certificate" in log
