"""A build that logs in by the identity of its ServiceAccount: the API server makes the token, the kubelet mounts it."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hack.target import Target
from tests.support.clouds import ACCOUNT, POOL, Cloud
from tests.support.operator_process import OperatorProcess, in_place_of_the_installed
from tests.support.tenant import BOTH, Tenant, inline

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

IDENTITY = {"provider": "Google", "workloadIdentityProvider": POOL, "role": ACCOUNT}
NAME = f"google/{POOL}/{ACCOUNT}"


@pytest.fixture
def cloud(target: Target, tenant: Tenant) -> Iterator[Cloud]:
    """An exchange on this machine that has the API server review each token, and its registry."""
    if target.facts.secure_registry is None:
        pytest.skip("needs pods that reach this machine, as those of the local cluster do")
    user = f"system:serviceaccount:{tenant.namespace}:builder"

    def trusted(token: str, audience: str) -> bool:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        status = json.loads(target.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))["status"]
        return bool(status.get("authenticated")) and status["user"]["username"] == user

    host, port = target.facts.registry.split(":")
    with socket.create_connection((host, int(port))) as connection:
        here = connection.getsockname()[0]
    found = Cloud(target.facts.registry, trusted)
    with found.serving(here):
        yield found


@pytest.fixture
def process(target: Target, operator: str, tmp_path: Path, cloud: Cloud, tenant: Tenant) -> Iterator[OperatorProcess]:
    """The operator as a process, whose policy knows the exchange and allows the identity in the namespace."""
    del operator
    with ExitStack() as stack:
        process = stack.enter_context(in_place_of_the_installed(target, tmp_path))
        process.change_policy(
            registries=[*target.registries, {"host": cloud.host, "plainHttp": True}],
            identities=cloud.policy(f"http://{cloud.host}"),
            tenants=[{"namespaces": [tenant.namespace], "identities": [NAME]}, {"namespaces": ["*"]}],
        )
        process.start()
        yield process


def test_a_build_logs_in_by_the_identity_of_its_service_account(
    tenant: Tenant, cloud: Cloud, process: OperatorProcess
) -> None:
    assert process
    tenant.kubectl("create", "serviceaccount", "builder")
    image = f"{cloud.host}/{tenant.namespace}/app"
    dockerfile = f"FROM {cloud.host}/library/busybox:1.36\nRUN uname -m > /machine\n"
    build = tenant.build(
        source=inline(dockerfile),
        output={"image": image, "identity": IDENTITY, "secretRefs": []},
        cache={"mode": "Max"},
        scheduling={"serviceAccountName": "builder"},
    )
    status = build.succeeded()
    beside = f"{tenant.target.facts.registry}/{tenant.namespace}/app"
    assert tenant.images.digest(f"{beside}:latest") == status["image"]["digest"]
    machines = {
        each["platform"]: tenant.images.file(f"{beside}@{each['digest']}", "/machine").strip()
        for each in status["image"]["platforms"]
    }
    assert machines == dict(zip(BOTH, ("x86_64", "aarch64"), strict=True))
    assert {"google sts", "google account"} == set(cloud.asked)

    told = json.dumps(build.get()) + "".join(
        tenant.kubectl("logs", pod["metadata"]["name"], "--all-containers") for pod in build.pods()
    )
    assert not any(login in told for login in cloud.logins)
    for pod in build.pods():
        mounts = {
            each["name"]: [mount["name"] for mount in each["volumeMounts"]]
            for each in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))
        }
        assert "identity" in mounts.pop("step")
        assert not any("identity" in names for names in mounts.values())


def test_an_identity_that_the_policy_does_not_name_starts_nothing(
    tenant: Tenant, cloud: Cloud, process: OperatorProcess
) -> None:
    assert process
    identity = {**IDENTITY, "role": "admin@project.iam.gserviceaccount.com"}
    build = tenant.build(output={"image": f"{cloud.host}/{tenant.namespace}/app", "identity": identity})
    status = build.until(lambda status: any(each["reason"] == "PolicyDenied" for each in status["conditions"]))
    assert "admin@project.iam.gserviceaccount.com" in json.dumps(status["conditions"])
    assert build.pods() == []
    assert cloud.asked == []
