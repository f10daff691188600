"""What builds of a namespace may ask of the cluster, and what their pods get whatever they ask.

What the policy does not name is held to a safe default: no class, label or taint that belongs to the cluster itself.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator

from multiarchbuild.api.base import Model
from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.scheduling import Resources, Toleration

from .patterns import IdentityPattern, KeyPattern, MatchAny, Pattern, is_pattern
from .pod_policy import CacheVolumes, StepResources, VolumeSizes, are_labels
from .quantities import Amount

NATIVE: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
"""Resources that every node has. All others are scarce, such as GPUs: builds get only those that have a maximum."""
SYSTEM_CLASSES: Final = "system-"
"""How the names of the priority classes of the cluster's own pods begin."""

_ROLES = "node-role.kubernetes.io/"
_CONTROL_PLANE = frozenset({f"{_ROLES}{role}" for role in ("control-plane", "controlplane", "master", "etcd")})
"""Of kubeadm, of Rancher, and of kubeadm before 1.24."""
_NODE_CONDITIONS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Domains of the taints by which Kubernetes keeps pods from nodes that are not well, or are cordoned."""
_LOST = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
"""What a pod may wait for to come back: Kubernetes itself lets every pod tolerate these for a while."""


def _is_taint_pattern(text: str) -> str:
    key, equals, value = text.partition("=")
    if not key or (equals and "=" in value):
        raise ValueError("write a taint as <key> or <key>=<value>, such as dedicated={namespace}")
    is_pattern(key)
    is_pattern(value)
    return text


TaintPattern = Annotated[str, Field(min_length=1, max_length=381), AfterValidator(_is_taint_pattern)]
"""Pattern of a taint, `key` or `key=value`."""


class Nodes(Model):
    """Nodes that pods are kept on."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that the nodes have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of theirs that the pods tolerate."""

    @field_validator("node_selector")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if labels.get("kubernetes.io/os", "linux") != "linux":
            raise ValueError("kubernetes.io/os is linux for all pods of builds: remove it")
        return are_labels(labels)

    @field_validator("tolerations")
    @classmethod
    def _are_tolerations(cls, tolerations: tuple[Toleration, ...]) -> tuple[Toleration, ...]:
        for each in tolerations:
            if each.operator == "Exists" and each.value:
                raise ValueError("operator Exists takes no value: remove it, or write operator: Equal")
            if each.operator == "Equal" and not each.key:
                raise ValueError("operator Equal needs a key: add one, or write operator: Exists")
            if each.toleration_seconds is not None and each.effect != "NoExecute":
                raise ValueError("tolerationSeconds needs effect: NoExecute")
        return tolerations

    def __or__(self, other: "Nodes") -> "Nodes":
        """Return both together; `other` counts where they differ."""
        selector = {**self.node_selector, **other.node_selector}
        return Nodes(node_selector=selector, tolerations=(*self.tolerations, *other.tolerations))


class Signing(Nodes):
    """Nodes that pods that sign are kept on, which Secrets hold keys, and who certifies signatures without one."""

    secrets: tuple[KeyPattern, ...] = ()
    """Patterns of Secrets with signing keys: output.signing names one of these, and nothing else of a build does, so
    that no key is mounted where a RUN is executed. Without any, output.signing names what `secrets` allows."""
    keyless: Keyless | None = None
    """Who certifies and timestamps the signatures of builds with output.signing.keyless; without it there are none."""


class Tenant(Model):
    """What builds of some namespaces may ask for, and what their pods get."""

    namespaces: MatchAny
    """Namespaces that this is about, such as team-*."""
    priority_classes: tuple[KeyPattern, ...] = ("*",)
    """Patterns of priority classes; those that begin with system- only where a pattern begins so too."""
    service_accounts: tuple[KeyPattern, ...] = ("*",)
    """Patterns of ServiceAccounts."""
    secrets: tuple[KeyPattern, ...] = ("*",)
    """Patterns of Secrets, for whatever a build needs them."""
    identities: tuple[IdentityPattern, ...] = ()
    """Patterns of identities of clouds, such as aws/arn:aws:iam::123456789012:role/builds-{namespace}. Unlike Secrets
    they are no objects of the namespace: none may be used that is not named here."""
    node_labels: tuple[KeyPattern, ...] = ("*",)
    """Patterns of keys of node labels that nodeSelector and affinity may name; those of the control plane only where a
    pattern spells out node-role.kubernetes.io/."""
    tolerations: tuple[TaintPattern, ...] = ("*",)
    """Patterns of taints, as key or key=value. Those of the control plane, and those by which Kubernetes keeps pods
    from unhealthy nodes, only where a pattern spells out their domain. A toleration of all taints is never allowed."""
    max_resources: dict[str, Amount] = Field(default_factory=dict)
    """Instead of maxResources of the policy, for each resource that is named here."""
    default_resources: Resources | None = None
    """Instead of defaultResources of the policy."""
    step_resources: StepResources | None = None
    """Instead of stepResources of the policy."""
    volumes: VolumeSizes | None = None
    """Instead of volumes of the policy."""
    cache_volumes: CacheVolumes | None = None
    """Instead of cacheVolumes of the policy."""
    placement: Nodes = Nodes()
    """Nodes that all pods of these builds are kept on."""
    signing: Signing = Signing()
    """Nodes that pods that sign are kept on besides, Secrets for signing alone, and who certifies signatures."""

    @field_validator("placement")
    @classmethod
    def _leaves_platforms_alone(cls, placement: Nodes) -> Nodes:
        for key in placement.node_selector:
            if key == "kubernetes.io/arch" or re.fullmatch(r"(.*\.)?multiarch\.build/.*", key):
                raise ValueError(f"nodeSelector.{key} is chosen for each platform: remove it")
        return placement

    def covers(self, namespace: str) -> bool:
        """Return whether this is about `namespace`."""
        return any(Pattern(text).matches(namespace) for text in self.namespaces)

    def allows_class(self, name: str, namespace: str) -> bool:
        """Return whether pods may have this priority class."""
        return _named(self.priority_classes, name, namespace, SYSTEM_CLASSES if name.startswith(SYSTEM_CLASSES) else "")

    def allows_label(self, key: str, namespace: str) -> bool:
        """Return whether builds may choose nodes by this label."""
        return _named(self.node_labels, key, namespace, _ROLES if key in _CONTROL_PLANE else "")

    def allows_toleration(self, toleration: Toleration, namespace: str) -> bool:
        """Return whether builds may tolerate these taints."""
        key, guard = toleration.key, _guard(toleration.key)
        if not key:
            return False
        for text in self.tolerations:
            pattern, _, value = text.partition("=")
            every = "=" not in text or value == "*"
            fits = every or (toleration.operator == "Equal" and _named((value,), toleration.value, namespace))
            if fits and _named((pattern,), key, namespace, guard):
                return True
        return False

    def pods(self, *, sign: bool = False) -> Nodes:
        """Return where pods go; `sign` if they sign."""
        return self.placement | self.signing if sign else self.placement


def named(patterns: Sequence[str], name: str, namespace: str) -> bool:
    """Return whether one of `patterns` fits `name`; `{namespace}` in it is the build's."""
    return _named(patterns, name, namespace)


def _named(patterns: Sequence[str], name: str, namespace: str, guard: str = "") -> bool:
    return any(
        Pattern(text).matches(name, namespace=namespace) and text.partition("*")[0].startswith(guard)
        for text in patterns
    )


def _guard(taint: str) -> str:
    """Return how a pattern has to begin for this taint: with its domain, where it keeps pods of others away."""
    if taint in _CONTROL_PLANE:
        return _ROLES
    return next((each for each in _NODE_CONDITIONS if taint.startswith(each) and taint not in _LOST), "")


def are_told_apart(tenants: tuple[Tenant, ...]) -> tuple[Tenant, ...]:
    """Return `tenants`; the first that covers a namespace counts, so none after one for all could ever count."""
    for number, each in enumerate(tenants[:-1]):
        if "*" in each.namespaces:
            raise ValueError(f"[{number}] covers all namespaces, and the first entry that fits counts: put it last")
    return tenants
