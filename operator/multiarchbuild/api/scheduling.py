"""`spec.scheduling`: where the builders run. Field names and meanings are those of a Pod."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from .base import Model
from .durations import Duration, parse_duration
from .names import ObjectName
from .schema import ATOMIC, Keyword, MapBy, Rule, keys_match, matches, model_rules

_LABEL_KEY = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?"
_LABEL_VALUE = "([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?"

Quantity = Annotated[
    str | int,
    Keyword("x-kubernetes-int-or-string", value=True),
    Keyword("pattern", r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?0*[0-9]{1,3})?$"),
    Keyword("minimum", 0),
    Keyword("maxLength", 32),
]
"""Amount of a resource: `500m`, `2`, `4Gi`."""

Quantities = Annotated[
    dict[str, Quantity],
    Field(max_length=8),
    keys_match(_LABEL_KEY, "the name of a resource is cpu, memory, ephemeral-storage or <domain>/<name>"),
]

LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=317),
    matches(_LABEL_KEY, "a label key is <name> or <domain>/<name>, such as kubernetes.io/os"),
]

LabelValue = Annotated[
    str,
    Field(max_length=63),
    matches(_LABEL_VALUE, "a label value consists of letters, digits, '-', '_' and '.'"),
]

NodeLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    keys_match(_LABEL_KEY, "a label key is <name> or <domain>/<name>, such as kubernetes.io/os", longest=317),
    Rule(
        "!('kubernetes.io/os' in self) || self['kubernetes.io/os'] == 'linux'",
        "builders run on Linux, also for Windows platforms: remove kubernetes.io/os",
    ),
]


class Strategy(StrEnum):
    """How a platform is built."""

    AUTO = "Auto"
    NATIVE = "Native"
    EMULATED = "Emulated"
    CROSS = "Cross"


class Resources(Model):
    """Compute resources of a builder, as of a container."""

    requests: Quantities = Field(default_factory=dict)
    """What the scheduler keeps free, such as cpu: 500m."""
    limits: Quantities = Field(default_factory=dict)
    """What the builder may use at most, such as memory: 4Gi."""


class Toleration(Model):
    """A taint that the builders tolerate, as in a Pod."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "self.operator == 'Exists' ? !has(self.value) || self.value == '' : has(self.key) && self.key != ''",
                "a toleration with operator Equal needs a key, one with Exists takes no value",
            ),
            Rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect NoExecute",
                field=".tolerationSeconds",
            ),
        )
    )

    key: Annotated[
        str,
        Field(max_length=317),
        matches(f"({_LABEL_KEY})?", "a taint key is <name> or <domain>/<name>, such as example.com/pool"),
    ] = ""
    """Taint key; empty with Exists matches all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How value is compared."""
    value: Annotated[
        str,
        Field(max_length=63),
        matches(_LABEL_VALUE, "a taint value consists of letters, digits, '-', '_' and '.'"),
    ] = ""
    """Taint value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Taint effect; empty matches all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How long a NoExecute taint is tolerated, in seconds."""


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16), ATOMIC]


class NodeRequirement(Model):
    """One requirement on the labels of a node."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : "
                "self.operator in ['Gt', 'Lt'] ? has(self.values) && self.values.size() == 1 : "
                "!has(self.values) || self.values.size() == 0",
                "In and NotIn need values, Gt and Lt need one value, Exists and DoesNotExist take none",
                field=".values",
            )
        )
    )

    key: LabelKey
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How values are compared."""
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32), ATOMIC] = ()
    """Values to compare with."""


class NodeTerm(Model):
    """Requirements that must all hold."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(min_length=1, max_length=16), ATOMIC]
    """Requirements on the labels of a node."""


class NodeSelector(Model):
    """Terms of which one must hold."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Field(min_length=1, max_length=8), ATOMIC]
    """Terms of which one must hold."""


class PreferredNodeTerm(Model):
    """A term that the scheduler prefers."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Weight of the term."""
    preference: NodeTerm
    """The term."""


class NodeAffinity(Model):
    """Node affinity, as in a Pod."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes that the builders may run on."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNodeTerm, ...], Field(max_length=8), ATOMIC
    ] = ()
    """Nodes that the builders had better run on."""


class Affinity(Model):
    """Affinity of the builders; builders of one run never attract or repel each other."""

    node_affinity: NodeAffinity | None = None
    """Node affinity, as in a Pod."""


_OWN_KEYS = Rule(
    "self.all(k, !k.matches(r'^([a-z0-9.-]+\\.)?multiarch\\.build/') && k != 'app.kubernetes.io/managed-by')",
    "keys of multiarch.build and app.kubernetes.io/managed-by belong to the operator: choose another key",
)
PodLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=16),
    keys_match(_LABEL_KEY, "a label key is <name> or <domain>/<name>, such as kueue.x-k8s.io/queue-name", longest=317),
    _OWN_KEYS,
]
PodAnnotations = Annotated[
    dict[str, Annotated[str, Field(max_length=1024)]],
    Field(max_length=16),
    keys_match(_LABEL_KEY, "an annotation key is <name> or <domain>/<name>, such as example.com/team", longest=317),
    _OWN_KEYS,
]


class BuilderMetadata(Model):
    """Labels and annotations of each builder's pod, for what acts upon pods: a queue such as Kueue, cost reports.

    The operator's policy (`buildMetadata`) says which keys a build may set.
    """

    labels: PodLabels = Field(default_factory=dict)
    """Labels, such as kueue.x-k8s.io/queue-name: builds."""
    annotations: PodAnnotations = Field(default_factory=dict)
    """Annotations."""


class Override(Model):
    """What differs for one platform."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!has(self.strategy) || self.strategy != 'Cross'",
                "strategy Cross is for all platforms at once: set scheduling.strategy",
                field=".strategy",
            )
        )
    )

    platform: Annotated[str, Field(max_length=32)]
    """One of spec.platforms, written as there."""
    strategy: Strategy | None = None
    """Instead of scheduling.strategy."""
    node_selector: NodeLabels = Field(default_factory=dict)
    """In addition to scheduling.nodeSelector."""
    tolerations: Tolerations = ()
    """In addition to scheduling.tolerations."""
    affinity: Affinity | None = None
    """Instead of scheduling.affinity."""
    resources: Resources | None = None
    """Instead of scheduling.resources."""


class Scheduling(Model):
    """Where the builders run."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "self.strategy != 'Cross' || !has(self.overrides) || self.overrides.all(entry, has(entry.strategy))",
                "with strategy Cross one builder makes every platform: give the override a strategy of its own, or "
                "say for all of them what it says",
                field=".overrides",
            )
        )
    )

    strategy: Strategy = Strategy.AUTO
    """Auto: native, else QEMU. Native: never QEMU. Emulated: always QEMU. Cross: one builder makes every platform."""
    native_wait: Duration = "2m"
    """With Auto, how long to wait for a native node, which an autoscaler may bring, before QEMU is used; 0s: none."""
    pending_timeout: (
        Annotated[Duration, Rule("!self.matches(r'^[0hms]*$')", "a pod needs time to get a node: write 90s, 10m or 1h")]
        | None
    ) = None
    """How long a builder may wait for a node before the try counts as failed and another follows, within spec.retries;
    by default as long as the run may take."""
    resources: Resources = Resources()
    """Compute resources of each builder."""
    node_selector: NodeLabels = Field(default_factory=dict)
    """Labels that a builder's node must have."""
    tolerations: Tolerations = ()
    """Taints that the builders tolerate."""
    affinity: Affinity | None = None
    """Affinity of the builders."""
    service_account_name: ObjectName = "default"
    """ServiceAccount of the pods, for workload identity; its token is not mounted."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    pod_metadata: BuilderMetadata = BuilderMetadata()
    """Labels and annotations of each builder's pod."""
    keep_builder: Duration | None = None
    """How long a builder stays after a run, to serve the next run of this build and platform with what it has in its
    cache; 0s: not at all. By default, and at most, what the operator's policy says (keptBuilders)."""
    overrides: Annotated[tuple[Override, ...], Field(max_length=16), MapBy("platform")] = ()
    """What differs for single platforms."""

    @property
    def native_wait_delta(self) -> timedelta:
        """`native_wait` as a span of time."""
        return parse_duration(self.native_wait)
