"""What `kubectl mab doctor` asks a real API server, as an administrator and as somebody who may do little."""

import json
import uuid
from collections.abc import Iterator

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.cli import checks, doctor
from multiarchbuild.cli.checks import Facts, Level
from multiarchbuild.cli.kube import Cluster
from multiarchbuild.cli.kubeconfig import Access, Impersonation
from tests.api.conftest import Kubectl

BOTH = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]


@pytest.fixture
def namespace(kube: Kubectl) -> Iterator[str]:
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    kube("create", "namespace", name)
    kube("create", "serviceaccount", "builder", "-n", name)
    kube("wait", "serviceaccount/default", "-n", name, "--for=create", "--timeout=120s")
    yield name
    kube("delete", "namespace", name, "--wait=false")


def look(kube: Kubectl, namespace: str, user: str = "") -> Facts:
    access = Access(kubeconfig=str(kube.kubeconfig), namespace=namespace, impersonated=Impersonation(user))
    return doctor.look(Cluster.connect(access), BOTH)


def levels(facts: Facts) -> dict[str, Level]:
    return {found.check: found.level for found in checks.findings(facts)}


def test_an_administrator_is_told_what_is_missing(kube: Kubectl, namespace: str) -> None:
    facts = look(kube, namespace)
    assert facts.served
    assert facts.exists
    assert facts.operators == []
    assert set(facts.rights.values()) == {True}
    found = levels(facts)
    assert (found["Kubernetes"], found["your rights"], found["Pod Security"]) == (Level.OK,) * 3
    assert found["operator"] is Level.MISSING, "this API server has no operator"
    assert found["builds for linux/arm64"] is Level.MISSING, "and no nodes"
    assert json.loads(kube("get", "pods", "-n", namespace, "-o", "json"))["items"] == [], "a dry run"


@pytest.mark.parametrize("enforced", ["baseline", "restricted"])
def test_pod_security_that_refuses_builders_is_told(kube: Kubectl, namespace: str, enforced: str) -> None:
    kube("label", "namespace", namespace, f"pod-security.kubernetes.io/enforce={enforced}")
    facts = look(kube, namespace)
    (found,) = checks.pod_security(facts)
    assert found.level is Level.MISSING
    assert f'violates PodSecurity "{enforced}' in found.message
    assert f"kubectl label namespace {namespace} " in found.remedy


def test_who_may_do_little_is_told_what_could_not_be_looked_at(kube: Kubectl, namespace: str) -> None:
    facts = look(kube, namespace, user=f"system:serviceaccount:{namespace}:builder")
    assert (facts.nodes, facts.operators, facts.refusal, facts.enforced) == (None,) * 4
    assert set(facts.rights.values()) == {False}
    found = levels(facts)
    assert (found["nodes"], found["operator"], found["Pod Security"]) == (Level.UNKNOWN,) * 3
    assert found["your rights"] is Level.WARNING


def test_a_namespace_that_does_not_exist(kube: Kubectl) -> None:
    facts = look(kube, "there-is-none")
    assert not facts.exists
    assert facts.refusal is None
    assert facts.enforced is None
