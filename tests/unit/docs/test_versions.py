"""docs/versions.md says what the chart, the package and the local cluster say."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")


def test_the_oldest_kubernetes_is_that_of_the_chart() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "multiarchbuild" / "Chart.yaml").read_text(encoding="utf-8"))
    oldest = chart["kubeVersion"].removeprefix(">=").rsplit(".", 1)[0]
    assert f"| needed | {oldest} or newer." in PAGE


def test_what_is_tested_is_what_the_local_cluster_runs() -> None:
    for program, module, expected in (
        ("kubernetes", "k8s.io/kubernetes", "| tested | {}, by `make test`"),
        ("helm", "helm.sh/helm/v4", "tested with {}"),
    ):
        text = (ROOT / "tests" / "cluster" / "programs" / program / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^\s+{re.escape(module)} v(\d+\.\d+)\.", text, re.MULTILINE)
        assert found
        assert expected.format(found[1]) in PAGE


def test_python_is_that_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert f"| Python, for the command line | {', '.join(versions)} |" in PAGE
