"""The chart's files that need no Helm: its README, its versions, and what it tells Prometheus and Grafana."""

import json
import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hack import chart_readme
from multiarchbuild import __version__
from multiarchbuild.api.identity import Aws, Azure, Google, Identities
from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.nodes import (
    APP_ARMOR_LABEL,
    APP_ARMOR_PROFILE,
    APP_ARMOR_PROFILE_LABEL,
    PROFILE_FILE,
    PROFILE_LABEL,
    PROFILE_VERSION,
    verified_by,
)
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Mode, Result
from multiarchbuild.controller.metrics import Metrics
from multiarchbuild.plan.pod_policy import AccessMode, CacheVolumes, Injection, PodMetadata, StepResources, VolumeSizes
from multiarchbuild.plan.policy import Emulation, Images, Policy, PollingPolicy, RootlessPolicy
from multiarchbuild.plan.proxy import ProxyPolicy
from multiarchbuild.plan.tenants import Nodes, Signing, Tenant
from multiarchbuild.plan.tracing import Tracing
from multiarchbuild.qemu.architectures import ARCHITECTURES

CHART = chart_readme.CHART
VALUES = (CHART / "values.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))


def test_the_readme_is_what_the_values_say() -> None:
    assert (CHART / "README.md").read_text(encoding="utf-8") == chart_readme.page(), "run make generate"


def test_every_value_is_documented_and_in_a_chapter() -> None:
    assert [value.path for value in chart_readme.values(VALUES) if not (value.text and value.chapter)] == []


def test_the_generator_reads_comments_as_a_person_does() -> None:
    text = "# File.\n\n## One\n\n# Of a.\n# And more.\na: 1\nb:\n  # Of c.\n  c: {d: 2}\n"
    text += "# Of e, as a whole.\ne:\n  f: 3\ng: 4\n"
    found = [(value.path, value.default, value.text, value.chapter) for value in chart_readme.values(text)]
    assert found == [
        ("a", 1, "Of a. And more.", "One"),
        ("b.c", {"d": 2}, "Of c.", "One"),
        ("e", {"f": 3}, "Of e, as a whole.", "One"),
        ("g", 4, "", "One"),
    ]


def test_the_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_schema_knows_every_value_and_no_other() -> None:
    assert _paths(yaml.safe_load(VALUES), SCHEMA) == []


def test_the_schema_knows_every_field_of_the_policy() -> None:
    policy = SCHEMA["properties"]["policy"]["properties"]
    models: dict[str, type[BaseModel]] = {
        "images": Images,
        "emulation": Emulation,
        "stepResources": StepResources,
        "podMetadata": PodMetadata,
        "polling": PollingPolicy,
        "volumes": VolumeSizes,
        "cacheVolumes": CacheVolumes,
        "proxy": ProxyPolicy,
        "identities": Identities,
        "rootless": RootlessPolicy,
        "tracing": Tracing,
    }
    assert _names(Policy) == policy.keys()
    for field, model in models.items():
        assert _names(model) == _resolved(policy[field])["properties"].keys()
    providers: dict[str, type[BaseModel]] = {"aws": Aws, "google": Google, "azure": Azure}
    for provider, each in providers.items():
        assert _names(each) == policy["identities"]["properties"][provider]["properties"].keys()
    tenant = policy["tenants"]["items"]["properties"]
    assert _names(Tenant) == tenant.keys()
    for field, kind in (("placement", Nodes), ("signing", Signing)):
        assert _names(kind) == _resolved(tenant[field])["properties"].keys()
    assert _names(Keyless) == tenant["signing"]["properties"]["keyless"]["properties"].keys()
    assert policy["injection"]["enum"] == list(Injection)
    assert _resolved(policy["cacheVolumes"])["properties"]["accessMode"]["enum"] == list(AccessMode)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _names(model: type[BaseModel]) -> set[str | None]:
    return {field.alias for field in model.model_fields.values()}


FREE = {".policy", ".livenessProbe", ".readinessProbe", ".resources", ".qemu.resources", ".profile.resources"}
"""Values that are of Kubernetes, or of the operator."""


def _paths(values: dict[str, Any], schema: dict[str, Any], parent: str = "") -> list[str]:
    """Return where values and schema differ, as far down as the schema names keys."""
    schema = _resolved(schema)
    known = schema.get("properties")
    if known is None or parent in FREE:
        return []
    found = [f"{parent}.{key}" for key in set(values) ^ (set(known) - {"global"})]
    assert schema["additionalProperties"] is False, parent
    for key in set(values) & set(known):
        if isinstance(values[key], dict):
            found += _paths(values[key], known[key], f"{parent}.{key}")
    return found


def test_the_schema_knows_the_architectures_that_qemu_is_registered_for() -> None:
    assert SCHEMA["properties"]["qemu"]["properties"]["architectures"]["items"]["enum"] == sorted(ARCHITECTURES)
    comment = next(value.text for value in chart_readme.values(VALUES) if value.path == "qemu.architectures")
    assert comment.endswith(f"From: {', '.join(sorted(ARCHITECTURES))}.")


def _expressions() -> list[str]:
    dashboard = json.loads((CHART / "dashboard.json").read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [entry["query"]["query"] for entry in dashboard["templating"]["list"] if entry["type"] == "query"]
    return [*panels, *variables, *(alert["expr"] for alert in ALERTS)]


def _series() -> dict[str, set[str]]:
    """Return the labels of each series of the operator by its name."""
    found: dict[str, set[str]] = {}
    for collector in Metrics().registry._collector_to_names:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}[collector._type]  # type: ignore[attr-defined]
        for suffix in suffixes:
            labels = set(collector._labelnames) | ({"le"} if suffix == "_bucket" else set())  # type: ignore[attr-defined]
            found[collector._name + suffix] = labels  # type: ignore[attr-defined]
    return found


def test_the_dashboard_shows_every_metric() -> None:
    dashboard = json.loads((CHART / "dashboard.json").read_text(encoding="utf-8"))
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert [family.name for family in Metrics().registry.collect() if family.name not in shown] == []


def test_dashboard_and_alerts_use_only_series_and_labels_that_exist() -> None:
    series = _series()
    everywhere = {"namespace", "job"}
    for expression in _expressions():
        names = re.findall(r"\bmab_\w+|\bup\b", expression)
        assert names, expression
        for name, matchers in re.findall(r"\b(mab_\w+|up)\b(?:\{([^}]*)\})?", expression):
            assert name in series or name == "up", expression
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert labels <= series.get(name, set()) | everywhere, expression
        for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
            grouped = {label.strip() for label in grouping.split(",")}
            assert grouped <= set.union(*(series.get(name, set()) for name in names)) | everywhere, expression


@pytest.mark.parametrize(
    ("label", "known"),
    [
        ("result", {*Result, "hit", "miss"}),
        ("mode", set(Mode)),
        ("reason", set(Reason)),
        ("kind", {"terminal", "transient", "bug"}),
    ],
)
def test_dashboard_and_alerts_match_only_values_that_exist(label: str, known: set[str]) -> None:
    found = [value for expr in _expressions() for value in re.findall(rf'\b{label}(?:=~|!~|!=|=)"([^"]*)"', expr)]
    assert found
    assert {part for value in found for part in value.split("|")} <= known


def test_the_alert_on_infrastructure_names_every_such_reason() -> None:
    (alert,) = [alert for alert in ALERTS if alert["alert"] == "MultiArchBuildInfrastructureFailures"]
    (reasons,) = re.findall(r'reason=~"([^"]*)"', alert["expr"])
    assert set(reasons.split("|")) == {reason for reason in Reason if reason.retryable}


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(alert["annotations"]) == {"summary", "description"}
        assert 'job="multiarchbuild-metrics"' in alert["expr"], "the chart replaces it by its own"
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) == len(set(names))


def test_the_chart_and_the_operator_know_one_profile() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    assert f'{{{{- define "multiarchbuild.profileVersion" -}}}}\n{PROFILE_VERSION}\n' in helpers
    folder = CHART / "templates"
    templates = "".join((folder / name).read_text(encoding="utf-8") for name in ("profile.yaml", "_profile.tpl"))
    for label in (PROFILE_LABEL, APP_ARMOR_PROFILE_LABEL, APP_ARMOR_LABEL):
        assert f"'{label}'" in templates
        assert f"'{verified_by(label)}'" in templates, "what a pod may annotate"
    for name in (PROFILE_FILE, APP_ARMOR_PROFILE):
        assert f'"{name.replace(PROFILE_VERSION, "%s")}"' in templates
