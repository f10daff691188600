"""Alerts, dashboard and exposition before the judges that Prometheus itself uses."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from hack.install import CHART, NAMESPACE, RELEASE
from hack.target import Target
from multiarchbuild.controller.metrics import Metrics
from tests.cluster.build.programs import ensure_programs
from tests.cluster.layout import cache_directory
from tests.support.tenant import Tenant


@pytest.fixture(scope="module")
def promcheck() -> Path:
    """The program in tests/cluster/programs/promcheck."""
    return ensure_programs(cache_directory(os.environ), (), extra=("promcheck",))["promcheck"]


def check(promcheck: Path, what: str, content: str) -> str:
    done = subprocess.run([promcheck, what], input=content, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _known() -> set[str]:
    names = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    families = {family.name: family.type for family in Metrics().registry.collect()}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return names | {f"{name}{suffix}" for name, kind in families.items() for suffix in suffixes[kind]}


def test_prometheus_parses_the_alerts_and_they_read_what_the_operator_serves(promcheck: Path) -> None:
    rules = yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))
    groups = {"groups": [{"name": "multiarchbuild", "rules": rules}]}
    selectors = [json.loads(line) for line in check(promcheck, "rules", yaml.safe_dump(groups)).splitlines()]
    assert {selector["__name__"] for selector in selectors} <= _known() | {"up"}
    assert {selector["job"] for selector in selectors} == {"multiarchbuild-metrics"}


def test_prometheus_parses_the_dashboard_and_it_shows_what_the_operator_serves(promcheck: Path) -> None:
    dashboard = json.loads((CHART / "dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    # As Grafana fills it in.
    filled = [expression.replace("$__rate_interval", "5m") for expression in expressions]
    selectors = [json.loads(line) for line in check(promcheck, "exprs", json.dumps(filled)).splitlines()]
    shown = {selector["__name__"] for selector in selectors}
    assert shown <= _known()
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_total") for name in shown}
    assert families == {family.name for family in Metrics().registry.collect()}, "no metric that nobody looks at"


def test_the_exposition_is_as_promtool_wants_it(promcheck: Path) -> None:
    check(promcheck, "metrics", generate_latest(Metrics().registry).decode())


def test_the_judge_judges(promcheck: Path) -> None:
    with pytest.raises(AssertionError, match="unclosed left parenthesis"):
        check(promcheck, "exprs", json.dumps(["sum(rate(mab_builds_total[5m])"]))
    with pytest.raises(AssertionError, match="should have"):
        check(promcheck, "metrics", "# HELP mab_x X.\n# TYPE mab_x counter\nmab_x 1\n")


@pytest.mark.e2e
@pytest.mark.xdist_group("alone")
def test_a_build_is_seen_in_the_metrics_and_in_the_log(promcheck: Path, tenant: Tenant, target: Target) -> None:
    run = tenant.build().succeeded()["run"]
    service = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}-metrics:http/proxy/metrics"
    exposition = target.kubectl("get", "--raw", service)
    check(promcheck, "metrics", exposition)
    series = {line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")}
    assert 'mab_builds_total{reason="Succeeded",result="Succeeded"}' in series
    for entry in run["platforms"]:
        labels = f'mode="{entry["mode"]}",platform="{entry["platform"]}",result="Succeeded"'
        assert f"mab_platform_builds_total{{{labels}}}" in series
    assert {'mab_watch_last_event_timestamp_seconds{resource="pods"}', "mab_builds_active"} <= series
    log = target.kubectl("logs", "-n", NAMESPACE, f"deployment/{RELEASE}").splitlines()
    lines = [entry for line in log if line.startswith("{") and (entry := json.loads(line)).get("run") == run["id"]]
    assert lines
    assert {entry["build"] for entry in lines} == {f"{tenant.namespace}/app"}
    seen = {(entry.get("platform"), entry.get("phase")) for entry in lines}
    assert {(entry["platform"], "Succeeded") for entry in run["platforms"]} <= seen
