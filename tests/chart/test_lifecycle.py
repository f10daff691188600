"""The chart installed, upgraded, rolled back and uninstalled on a real cluster, with builds running."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.install import CHART, NAMESPACE, RELEASE
from hack.target import Target
from tests.support import poll, watch
from tests.support.chart import EVERYTHING, left_of
from tests.support.gate import Gate
from tests.support.tenant import AMD64, BOTH, RESOURCE, Tenant, condition, inline
from tests.support.versions import FUTURE, next_definition
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


def install(target: Target, values: dict[str, Any], chart: Path = CHART) -> None:
    helm(target, "upgrade", "--install", RELEASE, str(chart), "--wait", "--timeout=5m", values=values)


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
    tenant: Tenant, target: Target, values: dict[str, Any], gate: Gate
) -> None:
    slow = f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n"
    with recording(target, "pods", "-n", tenant.namespace) as pods:
        build = tenant.build(source=inline(slow))
        build.until(
            lambda status: [entry["phase"] for entry in status.get("run", {}).get("platforms", ())] == ["Running"] * 2
        )
        test = {"image": tenant.image("selftest"), "namespace": tenant.namespace}
        changed = {**values, "podAnnotations": {"example.com/version": "two"}, "test": test}
        install(target, changed)
        (operator,) = operator_pods(target)
        assert operator["metadata"]["annotations"]["example.com/version"] == "two"
        gate.open()
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

    helm(target, "rollback", RELEASE, "--wait", "--timeout=5m")
    (operator,) = operator_pods(target)
    assert "example.com/version" not in operator["metadata"]["annotations"]
    assert build.status == status

    helm(target, "uninstall", RELEASE, "--wait", "--timeout=5m")
    assert left_of(target, RELEASE) == set()
    assert DEFINITION in target.kubectl("get", "crd", "-o", "name").split()
    assert target.kubectl("get", "leases", "-n", NAMESPACE, "-o", "name") == ""
    assert build.status == status, "what was asked to be kept is kept"
    install(target, values)
    build.rebuild()
    build.succeeded(after=run["id"])


def next_chart(folder: Path) -> Path:
    """Return the chart of the next version, which differs by its resource definition."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    definition = next_definition()
    definition["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    (chart / "definition.yaml").write_text(yaml.safe_dump(definition))
    (chart / "templates" / "crds.yaml").write_text('{{ .Files.Get "definition.yaml" }}\n')
    return chart


def apply_definition(target: Target, definition: dict[str, Any]) -> None:
    """Apply a resource definition as people do whose definitions do not come with a chart."""
    command = ("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-")
    target.kubectl(*command, stdin=json.dumps(definition))


@pytest.mark.parametrize("first", ["definition", "operator"])
def test_a_build_does_not_notice_a_newer_definition_nor_the_way_back(
    tenant: Tenant, target: Target, values: dict[str, Any], gate: Gate, tmp_path: Path, first: str
) -> None:
    changed = {**values, "podAnnotations": {"example.com/version": "next"}}
    slow = inline(f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n")
    with recording(target, "pods", "-n", tenant.namespace, "-l", "multiarch.build/role") as pods:
        build = tenant.build(source=slow)
        build.until(
            lambda status: [entry["phase"] for entry in status.get("run", {}).get("platforms", ())] == ["Running"] * 2
        )
        if first == "definition":
            apply_definition(target, next_definition())
            install(target, changed, next_chart(tmp_path))
        else:
            install(target, changed)
            apply_definition(target, next_definition())
        newer = tenant.build("newer", platforms=[AMD64], output={"tags": ["newer"]})
        poll.until("the API server stores a field of the next version", lambda: stores_what_is_new(tenant))
        outdated = tenant.build("outdated", scheduling={"strategy": FUTURE}, output={"tags": ["outdated"]})
        status = outdated.until(lambda status: condition(status, "Stalled"), why="it asks for a newer operator")
        assert condition(status, "Stalled")["reason"] == "OperatorOutdated"
        assert f"scheduling.strategy ('{FUTURE}')" in condition(status, "Stalled")["message"]
        built = newer.succeeded()

        helm(target, "rollback", RELEASE, "--wait", "--timeout=5m")
        (operator,) = operator_pods(target)
        assert "example.com/version" not in operator["metadata"]["annotations"]
        definition = json.loads(target.kubectl("get", DEFINITION, "-o", "json"))
        assert "fromTheFuture" not in json.dumps(definition["spec"]), "Helm has brought back its own"
        gate.open()
        status = build.succeeded()
        assert [entry["attempt"] for entry in status["run"]["platforms"]] == [1, 1]
        outdated.patch(scheduling={"strategy": "Auto"})
        outdated.succeeded()
        assert newer.status == built
    builds = {each.name: each.get()["metadata"]["uid"] for each in (build, newer, outdated)}
    counted = Counter(pod["metadata"]["labels"]["multiarch.build/build-uid"] for pod in pods.seen.values())
    assert {name: counted[uid] for name, uid in builds.items()} == {"app": 3, "newer": 2, "outdated": 3}


def stores_what_is_new(tenant: Tenant) -> bool:
    """Let a build that exists have a field of the next version, and return whether it is stored."""
    patch = json.dumps({"spec": {"fromTheFuture": {"value": 1}}})
    tenant.kubectl("patch", RESOURCE, "newer", "--type=merge", "-p", patch)
    return "fromTheFuture" in json.loads(tenant.kubectl("get", RESOURCE, "newer", "-o", "json"))["spec"]


def test_a_second_release_with_everything_waits_for_the_first_and_goes_without_a_trace(
    target: Target, operator: str, prometheus: None, namespace: str
) -> None:
    del prometheus
    repository, tag = operator.rsplit(":", 1)
    release = f"second-{namespace}"
    values = {
        **EVERYTHING,
        **{name: {} for name in ("nodeSelector", "affinity", "qemu", "profile")},
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
    notes = target.run(*command, stdin=json.dumps(values))
    assert f"serves the namespaces {namespace}." in notes
    own = ("-n", namespace, "-l", f"app.kubernetes.io/instance={release}")
    watch.wait_for(target, "pods", *own, until=all_run, why="the operator of the second release runs")
    told = "another installation of the operator serves these namespaces"
    log = watch.following(target, *own, "--max-log-requests=10")
    assert any(told in line and NAMESPACE in line for line in log), "it says for whom it waits"
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
    target.run("helm", "uninstall", release, "--namespace", namespace, "--wait", "--timeout=5m")
    assert left_of(target, release) == set()


def all_run(pods: watch.Objects) -> bool:
    """Return whether there are pods, and their containers have started."""
    return bool(pods) and all(pod["status"]["phase"] == "Running" for pod in pods.values())


def left_of_kinds(target: Target, release: str) -> set[str]:
    """Return the kinds of the objects of a release that runs."""
    kinds = ",".join(target.kubectl("api-resources", "--verbs=list", "--output=name").split())
    selector = ("--all-namespaces", "--selector", f"app.kubernetes.io/instance={release}")
    return {name.partition("/")[0] for name in target.kubectl("get", kinds, *selector, "--output=name").split()}
