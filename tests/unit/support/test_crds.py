"""What tests install for the whole cluster, and what they leave alone."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hack.target import Target
from tests.cluster.facts import Facts
from tests.support.crds import LABEL, establish, owners, skip_beside

FACTS = Facts(
    instance="",
    kubeconfig="",
    bin="",
    registry="",
    registry_insecure=False,
    secure_registry=None,
    buildkitd_toml="",
    images={},
)
FLUX, ARGO_CD, KUEUE = (f"crd/{name}" for name in ("buckets.example.com", "apps.example.com", "queues.example.com"))


@dataclass(frozen=True)
class Stub(Target):
    """A cluster with CRDs, each with its labels."""

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    applied: list[dict[str, Any]] = field(default_factory=list)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        if args[0] == "apply":
            self.applied.extend(json.loads(stdin or "")["items"])
            return ""
        names = [each for each in args if each in self.labels]
        established = [{"type": "Established", "status": "True"}]
        found = [
            {"metadata": {"name": each, "labels": self.labels[each]}, "status": {"conditions": established}}
            for each in names
        ]
        if "--ignore-not-found" in args:
            return json.dumps(found[0]) if found else ""
        return json.dumps({"items": found})


CLUSTER = Stub(FACTS, {FLUX: {"app": "flux"}, ARGO_CD: {LABEL: "true"}})


def test_what_has_no_label_of_the_tests_belongs_to_the_owner_of_the_cluster() -> None:
    assert owners(CLUSTER, FLUX, ARGO_CD, KUEUE) == {FLUX}


def test_all_that_is_in_the_local_cluster_is_there_for_tests() -> None:
    local = replace(CLUSTER, facts=replace(FACTS, instance="mab"))
    assert owners(local, FLUX, ARGO_CD, KUEUE) == set()
    skip_beside(local, FLUX)


def test_a_test_that_would_replace_what_the_owner_has_is_skipped() -> None:
    skip_beside(CLUSTER, ARGO_CD, KUEUE)
    with pytest.raises(pytest.skip.Exception, match=FLUX):
        skip_beside(CLUSTER, FLUX, KUEUE)


def test_definitions_of_the_owner_stay_as_they_are(tmp_path: Path) -> None:
    for name in (FLUX, ARGO_CD, KUEUE):
        document = {"kind": "CustomResourceDefinition", "metadata": {"name": name.removeprefix("crd/")}}
        (tmp_path / f"{name.removeprefix('crd/')}.yaml").write_text(f"---\n{json.dumps(document)}\n")
    cluster = replace(CLUSTER, applied=[])
    establish(cluster, sorted(tmp_path.iterdir()))
    assert {f"crd/{each['metadata']['name']}": each["metadata"]["labels"] for each in cluster.applied} == {
        ARGO_CD: {LABEL: "true"},
        KUEUE: {LABEL: "true"},
    }
