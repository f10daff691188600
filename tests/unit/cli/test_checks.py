"""What `kubectl mab doctor` finds, by what the API server said."""

from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.cli import checks
from multiarchbuild.cli.checks import Check, Facts, Level, Node, Operator, Profiles

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
GOOD = Facts(
    kubernetes="v1.36.4",
    namespace="team-a",
    version="0.2.0",
    platforms=(AMD64, ARM64),
    operators=(Operator("multiarchbuild-system", "0.2.0", ready=True),),
    nodes=(Node("one", "amd64"), Node("two", "arm64")),
    refusal="",
    rights={"create multiarchbuilds": True},
    probes={"one": "", "two": ""},
)
POD_SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile'


def test_a_good_cluster_has_nothing_but_good_findings() -> None:
    assert {found.level for found in checks.findings(GOOD)} == {Level.OK}


@pytest.mark.parametrize(
    ("check", "changed", "level", "message", "remedy"),
    [
        (checks.kubernetes, {"kubernetes": "v1.30.0-eks-1"}, Level.OK, "v1.30.0-eks-1", ""),
        (checks.kubernetes, {"kubernetes": "v1.29.9"}, Level.MISSING, "v1.29.9 is too old", "1.30 or newer"),
        (checks.kubernetes, {"kubernetes": "v2.0.0"}, Level.OK, "v2.0.0", ""),
        (checks.kubernetes, {"kubernetes": "devel"}, Level.UNKNOWN, "'devel'", ""),
        (checks.operator, {"served": False}, Level.MISSING, "no MultiArchBuild resource", "helm install"),
        (checks.operator, {"operators": None}, Level.UNKNOWN, "may not list Deployments", ""),
        (checks.operator, {"operators": ()}, Level.MISSING, "no operator is", "helm install"),
        (
            checks.operator,
            {"operators": (Operator("x", "0.2.0", ready=False),)},
            Level.MISSING,
            "not ready",
            "logs -n x",
        ),
        (checks.operator, {"version": "0.3.1"}, Level.OK, "version 0.2.0", ""),
        (checks.operator, {"version": "0.4.0"}, Level.WARNING, "this is kubectl mab 0.4.0", "one minor"),
        (checks.operator, {"version": "1.2.0"}, Level.WARNING, "this is kubectl mab 1.2.0", "one minor"),
        (checks.rights, {"rights": {"get pods/log": False}}, Level.WARNING, "may not get pods/log", "clusterrole=edit"),
        (checks.pod_security, {"exists": False, "refusal": None}, Level.MISSING, "does not exist", "create namespace"),
        (checks.pod_security, {"refusal": POD_SECURITY}, Level.MISSING, "violates PodSecurity", "enforce=privileged"),
        (
            checks.pod_security,
            {"refusal": "denied by policy"},
            Level.MISSING,
            "denied by policy",
            "change what refuses",
        ),
        (checks.pod_security, {"refusal": None, "enforced": "baseline"}, Level.MISSING, "enforces baseline", "label"),
        (checks.pod_security, {"refusal": None, "enforced": ""}, Level.UNKNOWN, "no label that refuses", ""),
        (checks.pod_security, {"refusal": None}, Level.UNKNOWN, "no label that refuses", ""),
        (checks.platforms, {"nodes": None}, Level.UNKNOWN, "may not list nodes", "administrator"),
        (checks.user_namespaces, {"probes": {"one": "operation not permitted"}}, Level.MISSING, "node one: ", "docs/"),
        (checks.user_namespaces, {"probes": {}}, Level.UNKNOWN, "does not say", ""),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(
    check: Check, changed: dict[str, Any], level: Level, message: str, remedy: str
) -> None:
    (found,) = check(replace(GOOD, **changed))
    assert found.level is level
    assert message in found.message
    assert remedy in found.remedy
    assert bool(found.remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("nodes", "level", "message"),
    [
        ((Node("a", "arm64"), Node("b", "amd64")), Level.OK, "natively on 1 of 2 nodes"),
        ((Node("a", "arm64", ready=False), Node("b", "amd64")), Level.WARNING, "no node is arm64"),
        ((Node("b", "amd64", qemu=frozenset({"arm64"})),), Level.WARNING, "in QEMU, much slower, on 1 nodes"),
        ((Node("b", "amd64"),), Level.WARNING, "the QEMU of BuildKit's image"),
        ((Node("b", "amd64", ready=False),), Level.MISSING, "no Linux node is ready"),
        ((), Level.MISSING, "no Linux node is ready"),
    ],
)
def test_where_a_platform_would_be_built(nodes: tuple[Node, ...], level: Level, message: str) -> None:
    (found,) = checks.platforms(replace(GOOD, nodes=nodes, platforms=(ARM64,)))
    assert (found.level, message in found.message) == (level, True), found


@pytest.mark.parametrize(
    ("system", "kernel", "remedy"),
    [
        ("Ubuntu 22.04.5 LTS", "5.15.0", ""),
        ("Ubuntu 24.04.3 LTS", "6.8.0", "apparmor_restrict_unprivileged_userns=0"),
        ("Bottlerocket OS 1.49.0 (aws-k8s-1.34)", "6.1.1", "user.max_user_namespaces"),
        ("Talos (v1.11.0)", "6.12.1", "user.max_user_namespaces"),
        ("Debian GNU/Linux 10 (buster)", "4.19.0-27", "Linux 5.11"),
        ("Debian GNU/Linux 13 (trixie)", "6.12.0", ""),
        ("Debian GNU/Linux 13 (trixie)", "custom", ""),
    ],
)
def test_nodes_that_are_known_to_refuse_user_namespaces(system: str, kernel: str, remedy: str) -> None:
    node = Node("one", "amd64", os_image=system, kernel=kernel)
    (found,) = checks.user_namespaces(replace(GOOD, nodes=(node,), probes={}))
    assert found.level is (Level.WARNING if remedy else Level.UNKNOWN)
    assert remedy in found.remedy
    (tried,) = checks.user_namespaces(replace(GOOD, nodes=(node,)))
    assert tried.level is Level.OK, "what a pod has tried counts more"


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ((Node("one", "amd64"),), []),
        (
            (Node("a", "amd64", app_armor=True, profiles=Profiles.BOTH), Node("b", "arm64", profiles=Profiles.SECCOMP)),
            [(Level.OK, "seccomp and AppArmor on a", ""), (Level.OK, "seccomp on b", "")],
        ),
        (
            (Node("one", "amd64", app_armor=True), Node("two", "amd64", app_armor=True)),
            [(Level.WARNING, "2 nodes with AppArmor, which refuses builders", "profile.appArmor")],
        ),
        (
            (Node("one", "amd64", profiles=Profiles.SECCOMP), Node("two", "amd64"), Node("x", "amd64", ready=False)),
            [(Level.OK, "seccomp on one", ""), (Level.WARNING, "two without the seccomp profile", "container `label`")],
        ),
    ],
)
def test_which_nodes_have_the_profiles(nodes: tuple[Node, ...], found: list[tuple[Level, str, str]]) -> None:
    findings = list(checks.profiles(replace(GOOD, nodes=nodes)))
    assert [(each.level, each.message) for each in findings] == [(level, message) for level, message, _ in found]
    assert all(words in each.remedy for each, (_, _, words) in zip(findings, found, strict=True))
