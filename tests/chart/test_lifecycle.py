"""The chart installed, upgraded, rolled back and uninstalled on a real cluster, with builds under way."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from hack.install import CHART, NAMESPACE, RELEASE
from hack.target import Target
from tests.support.chart import EVERYTHING, left_of
from tests.support.tenant import BOTH, RESOURCE, Tenant, inline
from tests.support.watch import recording

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

DEFINITION = "customresourcedefinition.apiextensions.k8s.io/multiarchbuilds.multiarch.build"


def helm(target: Target, *arguments: str, values: dict[str, Any] | None = None) -> str:
    command = ("helm", *arguments, "--namespace", NAMESPACE)
    if values is None:
        return target.run(*command)
    return target.run(*command, "--values", "-", stdin=json.dumps(values))


def operator_pods(target: Target) -> list[dict[str, Any]]:
    selector = f"app.kubernetes.io/name=multiarchbuild,app.kubernetes.io/instance={RELEASE}"
    return list(json.loads(target.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json"))["items"])


def install(target: Target, values: dict[str, Any]) -> None:
    helm(target, "upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout=3m", values=values)


@pytest.fixture
def values(target: Target, operator: str) -> Iterator[dict[str, Any]]:
    """The values of the release that all tests use, which has them again afterwards."""
    del operator
    before = json.loads(helm(target, "get", "values", RELEASE, "--output", "json"))
    yield before
    releases = json.loads(helm(target, "list", "--filter", f"^{RELEASE}$", "--output", "json"))
    if not releases or json.loads(helm(target, "get", "values", RELEASE, "--output", "json")) != before:
        install(target, before)


def test_a_build_does_not_notice_upgrade_test_rollback_and_reinstallation(
    tenant: Tenant, target: Target, values: dict[str, Any]
) -> None:
    slow = "FROM busybox:1.36\nRUN sleep 15; uname -m > /machine\n"
    with recording(target, "pods", "-n", tenant.namespace) as pods:
        build = tenant.build(source=inline(slow))
        build.until(lambda status: [entry["phase"] for entry in status["run"]["platforms"]] == ["Running"] * 2)
        test = {"image": tenant.image("selftest"), "namespace": tenant.namespace}
        changed = {**values, "podAnnotations": {"example.com/version": "two"}, "test": test}
        install(target, changed)
        (operator,) = operator_pods(target)
        assert operator["metadata"]["annotations"]["example.com/version"] == "two"
        status = build.succeeded()
        run = status["run"]
        since = datetime.fromisoformat(operator["metadata"]["creationTimestamp"])
        assert datetime.fromisoformat(run["startedAt"]) <= since, "the operator was replaced while it ran"
        assert since <= min(datetime.fromisoformat(entry["finishedAt"]) for entry in run["platforms"])
        assert [entry["attempt"] for entry in run["platforms"]] == [1, 1]
        assert len(pods.named()) == len(set(pods.named())) == 3, "two builders and one that publishes"

    log = helm(target, "test", RELEASE, "--logs")
    assert f"OK: {test['image']}@sha256:" in log
    digest = log.partition(f"OK: {test['image']}@")[2].split()[0]
    index = tenant.images.manifest(f"{test['image']}@{digest}")
    assert [f"linux/{entry['platform']['architecture']}" for entry in index["manifests"]][:2] == BOTH
    assert target.kubectl("get", RESOURCE, "-n", tenant.namespace, "-o", "name").split() == [
        "multiarchbuild.multiarch.build/app"
    ]

    helm(target, "rollback", RELEASE, "--wait", "--timeout=3m")
    (operator,) = operator_pods(target)
    assert "example.com/version" not in operator["metadata"]["annotations"]
    assert build.status == status

    helm(target, "uninstall", RELEASE, "--wait", "--timeout=2m")
    assert left_of(target, RELEASE) == set()
    assert DEFINITION in target.kubectl("get", "crd", "-o", "name").split()
    assert target.kubectl("get", "leases", "-n", NAMESPACE, "-o", "name") == ""
    assert build.status == status, "what was asked to be kept is kept"
    install(target, values)
    build.rebuild()
    build.succeeded(after=run["id"])


def test_a_second_release_with_everything_comes_up_and_goes_without_a_trace(
    target: Target, operator: str, prometheus: None, namespace: str
) -> None:
    del prometheus
    repository, tag = operator.rsplit(":", 1)
    release = f"second-{namespace}"
    values = {
        **EVERYTHING,
        **{name: {} for name in ("nodeSelector", "affinity", "qemu")},
        "image": {"repository": repository, "tag": tag},
        "imagePullSecrets": [],
        "extraArgs": [],
        "extraEnv": [{"name": "EXAMPLE", "value": "1"}],
        "namespaces": [namespace],
        "crds": {"enabled": False},
        "rbac": {"aggregate": False},
        "priorityClassName": "",
    }
    target.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    command = ("helm", "install", release, str(CHART), "--namespace", namespace, "--values", "-")
    notes = target.run(*command, "--wait", "--timeout=3m", stdin=json.dumps(values))
    assert f"serves the namespaces {namespace}." in notes
    there = left_of_kinds(target, release)
    assert there >= {
        "configmap",
        "deployment.apps",
        "lease.coordination.k8s.io",
        "networkpolicy.networking.k8s.io",
        "poddisruptionbudget.policy",
        "prometheusrule.monitoring.coreos.com",
        "servicemonitor.monitoring.coreos.com",
        "service",
        "serviceaccount",
    }
    target.run("helm", "uninstall", release, "--namespace", namespace, "--wait", "--timeout=2m")
    assert left_of(target, release) == set()


def left_of_kinds(target: Target, release: str) -> set[str]:
    """Return the kinds of the objects of a release that runs."""
    kinds = ",".join(target.kubectl("api-resources", "--verbs=list", "--output=name").split())
    selector = ("--all-namespaces", "--selector", f"app.kubernetes.io/instance={release}")
    return {name.partition("/")[0] for name in target.kubectl("get", kinds, *selector, "--output=name").split()}
