"""How Kueue is taken away, whatever has become of it."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hack.target import CommandError, Target
from tests.cluster.facts import Facts
from tests.support import kueue

FACTS = Facts(
    instance="mab",
    kubeconfig="",
    bin="",
    registry="",
    registry_insecure=False,
    secure_registry=None,
    buildkitd_toml="",
    images={},
)
CRD = {
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io"},
    "spec": {
        "group": "kueue.x-k8s.io",
        "names": {"plural": "workloads"},
        "versions": [{"name": "v1beta1", "storage": False}, {"name": "v1beta2", "storage": True}],
    },
    "status": {"conditions": [{"type": "Established", "status": "True"}]},
}
DEPLOYMENT = {"kind": "Deployment", "metadata": {"name": "kueue-controller-manager", "namespace": kueue.NAMESPACE}}
LEFT = {
    "workloads.v1beta2.kueue.x-k8s.io": {
        "name": "w",
        "namespace": "a",
        "finalizers": ["kueue.x-k8s.io/resource-in-use"],
    },
    "pods": {"name": "p", "namespace": "a", "finalizers": ["example.com/other", "kueue.x-k8s.io/managed"]},
}


@dataclass(frozen=True)
class Stub(Target):
    """A cluster whose Kueue lets go of its objects or not, and what was done to it."""

    lets_go: bool = True
    done: list[str] = field(default_factory=list)

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600, stderr: bool = False) -> str:
        del timeout, stderr
        verb, what = argv[1], argv[2]
        if verb == "delete":
            kinds = {each["kind"] for each in json.loads(stdin or "")["items"]}
            if "CustomResourceDefinition" in kinds and not self.lets_go and "patch w []" not in self.done:
                raise CommandError("timed out waiting for the condition")
            self.done.append(f"delete {' '.join(sorted(kinds))}")
        if verb == "patch":
            self.done.append(f"patch {argv[3]} {json.dumps(json.loads(argv[-1])['metadata']['finalizers'])}")
        if verb == "logs":
            raise CommandError("no such pod")
        if verb == "get" and what == "namespaces":
            return "namespace/a\n"
        if verb == "get" and what in LEFT:
            return json.dumps({"items": [{"metadata": LEFT[what]}]})
        return json.dumps(CRD) if verb == "get" else ""


@pytest.fixture(autouse=True)
def _chart(monkeypatch: pytest.MonkeyPatch) -> None:
    def objects(_target: Target) -> list[dict[str, Any]]:
        return [CRD, DEPLOYMENT]

    monkeypatch.setattr(kueue, "_objects", objects)


def test_it_is_taken_away_with_all_that_has_waited_for_it() -> None:
    cluster = Stub(FACTS)
    with kueue.running(cluster):
        assert cluster.done == []
    assert cluster.done == [
        "delete CustomResourceDefinition",
        "delete Deployment Namespace",
        'patch p ["example.com/other"]',
    ]


def test_where_it_has_died_its_finalizers_are_taken_off(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Stub(FACTS, lets_go=False)
    with pytest.raises(ZeroDivisionError), kueue.running(cluster):
        raise ZeroDivisionError
    assert cluster.done == [
        "delete Deployment",
        "patch w []",
        "delete CustomResourceDefinition",
        "delete Deployment Namespace",
        'patch p ["example.com/other"]',
    ]
    assert "timed out waiting" in capsys.readouterr().out


def test_a_kueue_of_the_owner_of_a_cluster_is_left_alone() -> None:
    cluster = Stub(replace(FACTS, instance=""))
    with pytest.raises(pytest.skip.Exception, match=r"crd/clusterqueues\.kueue"), kueue.running(cluster):
        pass
    assert cluster.done == []
