"""`-o jsonpath=…` answers as kubectl does: the table is of what kubectl 1.36 printed for the same object."""

import pytest

from multiarchbuild.cli.errors import UsageError
from multiarchbuild.cli.jsonpath import render

BUILD = {
    "kind": "MultiArchBuild",
    "metadata": {"name": "app", "annotations": {"example.com/team": "a"}, "generation": 3},
    "spec": {"platforms": ["linux/amd64", "linux/arm64"], "suspend": False},
    "status": {
        "image": {"digest": "sha256:1"},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Succeeded"},
            {"type": "Reconciling", "status": "False", "reason": "Succeeded"},
        ],
    },
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.status.image.digest}", "sha256:1"),
        (".status.image.digest", "sha256:1"),
        ("status.image.digest", "sha256:1"),
        ("{$.metadata.name}", "app"),
        ("{.metadata.generation}", "3"),
        ("{.spec.suspend}", "false"),
        ("{.spec.platforms}", '["linux/amd64","linux/arm64"]'),
        ("{.spec.platforms[*]}", "linux/amd64 linux/arm64"),
        ("{.spec.platforms[1]}", "linux/arm64"),
        ("{.spec.platforms[-1]}", "linux/arm64"),
        ("{.spec.platforms[0:1]}", "linux/amd64"),
        (r"{.metadata.annotations.example\.com/team}", "a"),
        ("{.metadata.annotations['example.com/team']}", "a"),
        ('{.status.conditions[?(@.type=="Ready")].status}', "True"),
        ("{..digest}", "sha256:1"),
        ("{.status.missing.deeper}", ""),
        ('name: {.metadata.name}{"\\n"}', "name: app\n"),
        ('{range .status.conditions[*]}{.type}={.status}{"\\n"}{end}', "Ready=True\nReconciling=False\n"),
        ("{range .status.conditions[*]}[{@.reason} {$.metadata.name}]{end}", "[Succeeded app][Succeeded app]"),
        ("{range .nothing[*]}{.x}{end}-", "-"),
    ],
)
def test_templates_of_kubectl(template: str, text: str) -> None:
    assert render(template, BUILD) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.a", "braces"),
        ("a}", "braces"),
        ("{range .a[*]}x", "{end}"),
        ("x{end}", "{range}"),
        ("{.a[}", "malformed"),
        ("{.a[?(@.b==)]}", "jsonpath"),
    ],
)
def test_what_is_wrong_is_said(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        render(template, BUILD)
