"""What a cluster must have for builds, as pure checks: each reads the facts and returns what it finds, with the remedy.

Sources of the hints for nodes: https://github.com/moby/buildkit/blob/v0.32.2/docs/rootless.md,
https://ubuntu.com/blog/ubuntu-23-10-restricted-unprivileged-user-namespaces and
https://www.talos.dev/latest/kubernetes-guides/configuration/usernamespace/
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from multiarchbuild.api.platforms import Platform

OLDEST: Final = (1, 30)
"""Minor of Kubernetes that the chart asks for."""
_OVERLAY: Final = (5, 11)
"""Linux that can mount overlayfs in a user namespace."""
_UBUNTU: Final = (23, 10)
"""Ubuntu that restricts user namespaces by AppArmor."""
_INSTALL: Final = (
    "helm install multiarchbuild oci://REGISTRY/charts/multiarchbuild "
    "--namespace multiarchbuild-system --create-namespace"
)
_PROBE: Final = "--probe starts a pod that tries"
_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)")


class Level(StrEnum):
    """How good a finding is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at."""
    WARNING = "warning"
    MISSING = "missing"
    """Builds will fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says."""

    check: str
    level: Level
    message: str
    remedy: str = ""


class Profiles(StrEnum):
    """What confines rootless builders on a node, where the policy sets rootless.profile: Localhost."""

    NONE = "none"
    SECCOMP = "seccomp"
    BOTH = "seccomp and AppArmor"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that may run builders."""

    name: str
    architecture: str
    ready: bool = True
    """Ready and open for pods."""
    os_image: str = ""
    kernel: str = ""
    qemu: frozenset[str] = frozenset()
    """Architectures that its labels say QEMU is registered for."""
    app_armor: bool = False
    """Whether a label says that its runtime confines by AppArmor."""
    profiles: Profiles = Profiles.NONE
    """Those of rootless builders that its labels say it has."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A Deployment of the operator."""

    namespace: str
    version: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What the API server says; None where this user may not know."""

    kubernetes: str
    """Version, such as v1.36.4."""
    namespace: str
    version: str
    """Of this command line."""
    platforms: Sequence[Platform]
    served: bool = True
    """Whether there is a definition of MultiArchBuild."""
    operators: Sequence[Operator] | None = None
    nodes: Sequence[Node] | None = None
    exists: bool = True
    """Whether the namespace does."""
    refusal: str | None = None
    """What admission says of a builder's pod in the namespace; empty where it is admitted."""
    enforced: str | None = None
    """Pod Security level that a label of the namespace enforces."""
    rights: Mapping[str, bool] = field(default_factory=dict)
    """Whether the user may do it, by `verb resource`."""
    probes: Mapping[str, str] = field(default_factory=dict)
    """Why no user namespace could be made on a node, empty where one was, by the name of the node."""


Check = Callable[[Facts], Iterator[Finding]]


def kubernetes(facts: Facts) -> Iterator[Finding]:
    """Is Kubernetes new enough?"""
    found = _version(facts.kubernetes)
    oldest = ".".join(map(str, OLDEST))
    if found is None:
        yield Finding("Kubernetes", Level.UNKNOWN, f"the API server reports the version {facts.kubernetes!r}")
    elif found < OLDEST:
        yield Finding(
            "Kubernetes", Level.MISSING, f"{facts.kubernetes} is too old", f"upgrade the cluster to {oldest} or newer"
        )
    else:
        yield Finding("Kubernetes", Level.OK, f"{facts.kubernetes} ({oldest} or newer is needed)")


def operator(facts: Facts) -> Iterator[Finding]:
    """Is the operator installed, ready, and of a version that fits?"""
    if not facts.served:
        yield Finding(
            "operator", Level.MISSING, "the cluster has no MultiArchBuild resource", f"install it: {_INSTALL}"
        )
    elif facts.operators is None:
        yield Finding("operator", Level.UNKNOWN, "the resource is installed; you may not list Deployments")
    elif not facts.operators:
        yield Finding(
            "operator", Level.MISSING, "the resource is installed, but no operator is", f"install it: {_INSTALL}"
        )
    for each in facts.operators or () if facts.served else ():
        where = f"version {each.version} in namespace {each.namespace}"
        if not each.ready:
            remedy = f"kubectl logs -n {each.namespace} -l app.kubernetes.io/name=multiarchbuild"
            yield Finding("operator", Level.MISSING, f"{where} is not ready", remedy)
        elif _apart(each.version, facts.version) > 1:
            remedy = "use versions that differ by one minor at most (docs/versions.md)"
            yield Finding("operator", Level.WARNING, f"{where}, and this is kubectl mab {facts.version}", remedy)
        else:
            yield Finding("operator", Level.OK, where)


def rights(facts: Facts) -> Iterator[Finding]:
    """May this user do what the command line does?"""
    refused = sorted(what for what, allowed in facts.rights.items() if not allowed)
    if refused:
        yield Finding(
            "your rights",
            Level.WARNING,
            f"you may not {', '.join(refused)} in namespace {facts.namespace}",
            f"ask for the role edit there: kubectl create rolebinding … --clusterrole=edit -n {facts.namespace}",
        )
    elif facts.rights:
        yield Finding("your rights", Level.OK, f"you may build in namespace {facts.namespace}")


def pod_security(facts: Facts) -> Iterator[Finding]:
    """Does the namespace admit a builder's pod?"""
    remedy = (
        f"kubectl label namespace {facts.namespace} --overwrite pod-security.kubernetes.io/enforce=privileged, "
        "or build in another namespace; `baseline` is enough if the operator's policy sets rootless.profile: Localhost"
    )
    if not facts.exists:
        create = f"kubectl create namespace {facts.namespace}, or name another one with -n"
        yield Finding("Pod Security", Level.MISSING, f"namespace {facts.namespace} does not exist", create)
    elif facts.refusal:
        remedy = remedy if "PodSecurity" in facts.refusal else "change what refuses it, or build in another namespace"
        yield Finding("Pod Security", Level.MISSING, facts.refusal, remedy)
    elif facts.refusal is not None:
        yield Finding("Pod Security", Level.OK, f"namespace {facts.namespace} admits a builder's pod")
    elif facts.enforced in {"baseline", "restricted"}:
        yield Finding("Pod Security", Level.MISSING, f"namespace {facts.namespace} enforces {facts.enforced}", remedy)
    else:
        message = f"namespace {facts.namespace} has no label that refuses builders; you may not try to create a pod"
        yield Finding("Pod Security", Level.UNKNOWN, message)


def platforms(facts: Facts) -> Iterator[Finding]:
    """Where would each platform be built?"""
    if facts.nodes is None:
        yield Finding("nodes", Level.UNKNOWN, "you may not list nodes", "ask an administrator to run this command")
        return
    ready = [node for node in facts.nodes if node.ready]
    for platform in facts.platforms:
        architecture, check = platform.architecture, f"builds for {platform}"
        native = [node for node in ready if node.architecture == architecture]
        qemu = [node for node in ready if architecture in node.qemu]
        remedy = f"add a node of architecture {architecture}; scheduling.strategy: Cross compiles without one"
        if native:
            yield Finding(check, Level.OK, f"natively on {len(native)} of {len(ready)} nodes")
        elif qemu:
            yield Finding(check, Level.WARNING, f"in QEMU, much slower, on {len(qemu)} nodes", remedy)
        elif ready:
            remedy += ", qemu.enabled of the chart registers QEMU on the nodes"
            message = (
                f"no node is {architecture}: in the QEMU of BuildKit's image, much slower, where the policy allows it"
            )
            yield Finding(check, Level.WARNING, message, remedy)
        else:
            remedy = "see why: kubectl get nodes; kubectl describe nodes"
            yield Finding(check, Level.MISSING, "no Linux node is ready", remedy)


def user_namespaces(facts: Facts) -> Iterator[Finding]:
    """Can a rootless builder make a user namespace on the nodes?"""
    for name, why in sorted(facts.probes.items()):
        if why:
            node = next((node for node in facts.nodes or () if node.name == name), Node(name, ""))
            remedy = _remedy(node) or "see docs/troubleshooting.md, BuilderUnsupported"
            yield Finding("user namespaces", Level.MISSING, f"node {name}: {why}", remedy)
    tried = [name for name, why in facts.probes.items() if not why]
    if tried:
        yield Finding("user namespaces", Level.OK, f"rootlesskit works on {', '.join(sorted(tried))}")
    if facts.probes or facts.nodes is None:
        return
    doubts: dict[str, list[str]] = {}
    for node in facts.nodes:
        if remedy := _remedy(node):
            doubts.setdefault(f"{node.os_image or node.kernel}\n{remedy}", []).append(node.name)
    for about, names in doubts.items():
        system, _, remedy = about.partition("\n")
        message = f"{_some(names)} with {system} may refuse them ({_PROBE})"
        yield Finding("user namespaces", Level.WARNING, message, remedy)
    if not doubts and facts.nodes:
        yield Finding(
            "user namespaces", Level.UNKNOWN, f"the API server does not say whether nodes allow them: {_PROBE}"
        )


def profiles(facts: Facts) -> Iterator[Finding]:
    """Which nodes have the profiles of rootless builders? Nothing where the chart lays none down."""
    nodes = [node for node in facts.nodes or () if node.ready]
    if not any(node.app_armor or node.profiles is not Profiles.NONE for node in nodes):
        return
    for kind in (Profiles.BOTH, Profiles.SECCOMP):
        if names := [node.name for node in nodes if node.profiles is kind]:
            yield Finding("profiles", Level.OK, f"{kind} on {_some(names)}")
    if names := [node.name for node in nodes if node.app_armor and node.profiles is Profiles.NONE]:
        remedy = (
            "set profile.appArmor in the chart's values; where it is set, the log of its container `label` says why"
        )
        yield Finding("profiles", Level.WARNING, f"{_some(names)} with AppArmor, which refuses builders", remedy)
    if names := [node.name for node in nodes if not node.app_armor and node.profiles is Profiles.NONE]:
        remedy = "the log of the container `label` of the profile DaemonSet there says why"
        yield Finding("profiles", Level.WARNING, f"{_some(names)} without the seccomp profile", remedy)


def _remedy(node: Node) -> str:
    """Return what has to be set on a node of this system before it allows user namespaces, nothing where it does."""
    system = node.os_image.lower()
    version = _version(system)
    if "bottlerocket" in system:
        return 'set [settings.kernel.sysctl] "user.max_user_namespaces" = "16384"'
    if "talos" in system:
        return "set machine.sysctls user.max_user_namespaces: 16384"
    if "ubuntu" in system and version is not None and version >= _UBUNTU:
        return "sysctl kernel.apparmor_restrict_unprivileged_userns=0 on the nodes"
    kernel = _version(node.kernel)
    if kernel is not None and kernel < _OVERLAY:
        return "use Linux 5.11 or newer: layers are copied before"
    return ""


def _version(text: str) -> tuple[int, int] | None:
    found = _NUMBERS.search(text)
    return (int(found[1]), int(found[2])) if found else None


def _apart(one: str, other: str) -> int:
    """Return how many minors two versions are apart; another major is many, what cannot be read is none."""
    first, second = _version(one), _version(other)
    if first is None or second is None:
        return 0
    return abs(first[1] - second[1]) if first[0] == second[0] else 100


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} nodes"


CHECKS: Final[Sequence[Check]] = (kubernetes, operator, rights, pod_security, platforms, user_namespaces, profiles)
"""In the order in which they are shown: what others depend on goes first."""
BEFORE_INSTALLATION: Final[Sequence[Check]] = (kubernetes, pod_security, platforms, user_namespaces)


def findings(facts: Facts, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return what all checks find."""
    return [finding for check in checks for finding in check(facts)]
