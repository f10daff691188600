"""Builds that sign as their ServiceAccount, with certificates by Fulcio and timestamps by an authority."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.target import Target
from tests.support import judges, sigstore
from tests.support.operator_process import OperatorProcess, in_place_of_the_installed
from tests.support.sigstore import Sigstore
from tests.support.tenant import BOTH, Build, Status, Tenant
from tests.support.told import by_cluster, by_registry, is_complete

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

TOKEN = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")
"""What every JWT looks like: two JSON objects and a signature, in base64url (RFC 7519)."""
KEYLESS = {"signing": {"keyless": True}}
BUILDER = {"serviceAccountName": "builder"}


@pytest.fixture
def process(target: Target, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, which is started once its policy is known."""
    with in_place_of_the_installed(target, tmp_path) as found:
        yield found


@pytest.fixture
def authorities(tenant: Tenant, process: OperatorProcess) -> Iterator[Sigstore]:
    """Fulcio and a timestamp authority, which the policy of an operator names for this namespace."""
    with sigstore.serving(tenant) as found:
        mine = {"namespaces": [tenant.namespace], "signing": {"keyless": found.policy}}
        process.change_policy(tenants=[mine, {"namespaces": ["*"]}])
        process.start()
        tenant.kubectl("create", "serviceaccount", "builder")
        yield found


def check_signed(build: Build, status: Status, by: Sigstore) -> None:
    """Let verifiers look at index and images."""
    name, index = status["image"]["ref"].split("@")
    images = [entry["digest"] for entry in status["image"]["platforms"]]
    assert len(images) == len(BOTH)
    for judge in judges.KEYLESS:
        for digest in (index, *images):
            said = judges.certified(f"{name}@{digest}", judge, **by.demands("builder"))
            assert (judge, digest, said["error"]) == (judge, digest, "")
            assert judge != "bundle" or judges.SLSA in said["predicates"]
        assert judges.certified(f"{name}@{index}", judge, **by.demands("default"))["error"], f"{judge} takes anybody"
    assert build.tenant.images.digest(f"{name}:latest") == index


def test_a_build_signs_as_its_service_account(tenant: Tenant, authorities: Sigstore, process: OperatorProcess) -> None:
    build = tenant.build(output=KEYLESS, scheduling=BUILDER)
    status = build.succeeded()
    demanded = authorities.demands("builder")
    assert status["image"]["signedBy"] == {"identity": demanded["subject"], "issuer": demanded["issuer"]}
    check_signed(build, status, authorities)

    # The token is where nothing of the user's is executed, and nowhere else.
    pods = build.pods()
    with_token = [pod for pod in pods if "serviceAccountToken" in json.dumps(pod["spec"])]
    assert [pod["metadata"]["labels"]["multiarch.build/role"] for pod in with_token] == ["publish"]
    told = {**by_cluster(tenant, build), **process.told(), **by_registry(tenant, status)}
    assert is_complete(told)
    assert any(b"certified a new key" in text for text in told.values())
    assert [where for where, text in told.items() if TOKEN.search(text)] == []
    # One is seen where there is one.
    assert TOKEN.search(tenant.kubectl("create", "token", "builder").encode())


def test_a_build_goes_on_once_fulcio_is_back(tenant: Tenant, authorities: Sigstore) -> None:
    authorities.scale("fulcio", 0)
    build = tenant.build(output=KEYLESS, scheduling=BUILDER)
    waiting = build.until(lambda status: "SigningUnavailable" in json.dumps(status["run"].get("publish", {})))
    assert not tenant.images.exists(f"{tenant.image()}:latest")
    assert f"Fulcio at {authorities.policy['fulcio']} cannot be reached" in json.dumps(waiting)
    authorities.scale("fulcio", 1)
    status = build.succeeded()
    assert status["run"]["id"] == waiting["run"]["id"]
    check_signed(build, status, authorities)
