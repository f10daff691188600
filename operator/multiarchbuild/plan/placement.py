"""Where a builder goes: a pure function of platform, strategy, policy and nodes.

Native first; QEMU never silently.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from multiarchbuild.api.nodes import APP_ARMOR_PROFILE_LABEL, PROFILE_LABEL, PROFILE_VERSION, qemu_label
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.scheduling import Affinity, NodeRequirement, Scheduling, Strategy, Toleration
from multiarchbuild.api.status import Mode

from .actions import Placement
from .children import Node
from .policy import Policy
from .tenants import Nodes

ARCH_LABEL = "kubernetes.io/arch"
OS_LABEL = "kubernetes.io/os"
AARCH32_LABEL = "multiarch.build/aarch32"
"""Set to true on arm64 nodes that run 32-bit programs; many arm64 servers cannot."""

_STARTING = "waiting for the pod to start"


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What a builder asks of its node."""

    platforms: tuple[Platform, ...]
    strategy: Strategy
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    affinity: Affinity | None
    namespace: str = ""
    """Of the build: the policy may allow QEMU in some only."""
    forced: Mapping[str, str] = field(default_factory=dict)
    """Labels among those of node_selector that the policy demands."""
    app_armor: bool = False
    """Whether a node that has both profiles serves as well as one that needs the seccomp profile alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement, and what to say about it while its pod waits."""

    placement: Placement
    reason: Reason
    message: str
    wait_until: datetime | None = None
    """When to choose again if the pod still waits."""


def placement_request(
    scheduling: Scheduling,
    platforms: tuple[Platform, ...],
    names: tuple[str, ...],
    namespace: str = "",
    forced: Nodes | None = None,
    *,
    app_armor: bool = False,
) -> PlacementRequest:
    """Return what the builder of `platforms`, written as `names` in spec, asks of its node, or the policy for it."""
    override = next((entry for entry in scheduling.overrides if len(names) == 1 and entry.platform == names[0]), None)
    forced = forced or Nodes()
    return PlacementRequest(
        platforms,
        override.strategy if override and override.strategy else scheduling.strategy,
        {**scheduling.node_selector, **(override.node_selector if override else {}), **forced.node_selector},
        (*scheduling.tolerations, *(override.tolerations if override else ()), *forced.tolerations),
        override.affinity if override and override.affinity else scheduling.affinity,
        namespace,
        forced.node_selector,
        app_armor,
    )


def choose(
    request: PlacementRequest, nodes: Sequence[Node], policy: Policy, *, native_deadline: datetime, now: datetime
) -> Choice:
    """Return where a builder goes now. The pod is created even where nothing fits yet: an autoscaler must see it."""
    match request.strategy:
        case Strategy.CROSS:
            return _cross(request, nodes)
        case Strategy.NATIVE:
            return _native(request, nodes)
        case Strategy.EMULATED:
            return _emulated(request, nodes, policy)
        case Strategy.AUTO:
            return _auto(request, nodes, policy, native_deadline, now)


def contradiction(request: PlacementRequest, policy: Policy) -> str:
    """Return why no node can ever do what is asked for, whatever nodes there are, or nothing."""
    if request.strategy not in {Strategy.NATIVE, Strategy.AUTO}:
        return ""
    placements, refused = _native_placements(request), policy.emulation.refusal(request.namespace)
    if _possible(placements, request) or (request.strategy is Strategy.AUTO and not refused):
        return ""
    (platform,) = request.platforms
    needs = " or ".join(_labels(placement, request) for placement in placements)
    qemu = f". {_no_emulator(request, policy)}" if refused else ", or set its strategy to Auto to allow QEMU"
    return (
        f"scheduling.nodeSelector excludes every node where {platform} is native, which has {needs}: remove the label, "
        f"or give the platform another value in scheduling.overrides{qemu}"
    )


def _native(request: PlacementRequest, nodes: Sequence[Node]) -> Choice:
    fitting = _first_fitting(_native_placements(request), request, nodes)
    if fitting is not None:
        return Choice(fitting, Reason.PENDING, _STARTING)
    message = f"{_missing(request)}: add one, or set scheduling.strategy to Auto to allow QEMU"
    return Choice(_likeliest(request), Reason.NO_BUILDER, message)


def _emulated(request: PlacementRequest, nodes: Sequence[Node], policy: Policy) -> Choice:
    options = _emulated_placements(request, policy)
    fitting = None if policy.emulation.refusal(request.namespace) else _first_fitting(options, request, nodes)
    if fitting is not None:
        return Choice(fitting, Reason.PENDING, "its strategy is Emulated")
    # The pod asks for the least that serves: the first node that joins may be any of them.
    return Choice(options[-1], Reason.NO_BUILDER, _no_emulator(request, policy))


def _auto(
    request: PlacementRequest, nodes: Sequence[Node], policy: Policy, native_deadline: datetime, now: datetime
) -> Choice:
    if not _possible(_native_placements(request), request):
        # Nothing to wait for: nodeSelector demands another architecture.
        emulated = _emulated(request, nodes, policy)
        excluded = "nodeSelector excludes native nodes: using QEMU"
        return emulated if emulated.reason is Reason.NO_BUILDER else replace(emulated, message=excluded)
    native = _native(request, nodes)
    if native.reason is not Reason.NO_BUILDER:
        return native
    missing = _missing(request)
    emulated = _emulated(request, nodes, policy)
    if emulated.reason is Reason.NO_BUILDER:
        return replace(native, message=f"{missing}, and {emulated.message}")
    if now < native_deadline:
        message = f"{missing}: waiting for one until {native_deadline:%H:%M:%S} UTC (scheduling.nativeWait), then QEMU"
        return replace(native, reason=Reason.WAITING_FOR_NATIVE_NODE, message=message, wait_until=native_deadline)
    return replace(emulated, message=f"{missing}: using QEMU")


def _cross(request: PlacementRequest, nodes: Sequence[Node]) -> Choice:
    anywhere = _placement(request, Mode.CROSS, {})
    fitting = _first_fitting((anywhere,), request, nodes)
    if fitting is None:
        return Choice(
            anywhere,
            Reason.NO_BUILDER,
            "no Ready, schedulable Linux node fits nodeSelector, tolerations and affinity: add one or relax them",
        )
    return Choice(fitting, Reason.PENDING, _STARTING)


def _native_placements(request: PlacementRequest) -> tuple[Placement, ...]:
    """Return where the platform is native, the likeliest first."""
    platform = request.platforms[0]
    labels: list[dict[str, str]]
    match platform.architecture, platform.variant:
        case "386", _:
            labels = [{ARCH_LABEL: "amd64"}, {ARCH_LABEL: "386"}]
        case "arm", _:
            labels = [{ARCH_LABEL: "arm64", AARCH32_LABEL: "true"}, {ARCH_LABEL: "arm"}]
        case architecture, "":
            labels = [{ARCH_LABEL: architecture}]
        case architecture, variant:
            # What a CPU can do beyond its architecture is in no well-known label: the node must say so itself.
            labels = [{ARCH_LABEL: architecture, f"multiarch.build/{architecture}-{variant}": "true"}]
    first, *others = (_placement(request, Mode.NATIVE, each) for each in labels)
    return (first, *(replace(other, slug=f"on-{dict(other.node_selector)[ARCH_LABEL]}") for other in others))


def _likeliest(request: PlacementRequest) -> Placement:
    """Return the first that nodeSelector leaves, or of all where it leaves none: such a build is refused anyway."""
    placements = _native_placements(request)
    return (_possible(placements, request) or placements)[0]


def _emulated_placements(request: PlacementRequest, policy: Policy) -> tuple[Placement, ...]:
    """Return where the platform is emulated, the better first."""
    label = {qemu_label(request.platforms[0].architecture): "true"}
    labelled = _placement(request, Mode.EMULATED, label, slug="qemu")
    if not policy.emulation.bundled or policy.emulation.refusal(request.namespace):
        return (labelled,)
    return (labelled, _placement(request, Mode.EMULATED, {}, slug="qemu-bundled"))


def _placement(request: PlacementRequest, mode: Mode, labels: Mapping[str, str], slug: str = "") -> Placement:
    selector = {**request.node_selector, OS_LABEL: "linux", **labels}
    return Placement(mode, tuple(sorted(selector.items())), slug)


def _possible(options: Sequence[Placement], request: PlacementRequest) -> tuple[Placement, ...]:
    """Return those of `options` whose labels are not at odds with the nodeSelector of spec."""
    demanded = request.node_selector.items()
    return tuple(each for each in options if all(dict(each.node_selector)[key] == value for key, value in demanded))


def _first_fitting(options: Sequence[Placement], request: PlacementRequest, nodes: Sequence[Node]) -> Placement | None:
    ways = (way for option in _possible(options, request) for way in _confined(option, request))
    return next((way for way in ways if any(fits(node, way, request) for node in nodes)), None)


def _confined(placement: Placement, request: PlacementRequest) -> Iterator[Placement]:
    """Yield how its builder may be confined, the stricter first.

    A pod that names an AppArmor profile is refused by a node without AppArmor. One that names none gets that of the
    runtime on a node with AppArmor, which forbids mounts.
    """
    if request.app_armor:
        labels = {key: value for key, value in placement.node_selector if key != PROFILE_LABEL}
        labels[APP_ARMOR_PROFILE_LABEL] = PROFILE_VERSION
        slug = "-".join(filter(None, (placement.slug, "apparmor")))
        yield replace(placement, node_selector=tuple(sorted(labels.items())), slug=slug)
    yield placement


def fits(node: Node, placement: Placement, request: PlacementRequest) -> bool:
    """Return whether a pod with this placement and this request may go to `node`.

    Free resources are the scheduler's to judge.
    """
    return (
        node.ready
        and node.schedulable
        and all(node.labels.get(key) == value for key, value in placement.node_selector)
        and _tolerates(node, request.tolerations)
        and _matches(node, request.affinity)
    )


def _tolerates(node: Node, tolerations: tuple[Toleration, ...]) -> bool:
    return all(
        effect == "PreferNoSchedule" or any(_tolerated(key, value, effect, entry) for entry in tolerations)
        for key, value, effect in node.taints
    )


def _tolerated(key: str, value: str, effect: str, toleration: Toleration) -> bool:
    if toleration.effect and toleration.effect != effect:
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", key)
    return (toleration.key, toleration.value) == (key, value)


def _matches(node: Node, affinity: Affinity | None) -> bool:
    required = (
        affinity.node_affinity.required_during_scheduling_ignored_during_execution
        if affinity and affinity.node_affinity
        else None
    )
    return required is None or any(
        all(_holds(node.labels, requirement) for requirement in term.match_expressions)
        for term in required.node_selector_terms
    )


def _holds(labels: Mapping[str, str], requirement: NodeRequirement) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            # As the scheduler: a value that is no integer matches nothing.
            try:
                have, limit = int(value or ""), int(requirement.values[0])
            except (ValueError, IndexError):
                return False
            return have > limit if requirement.operator == "Gt" else have < limit


def _missing(request: PlacementRequest) -> str:
    narrowed = request.node_selector.keys() - request.forced.keys() or request.affinity
    where = _labels(_likeliest(request), request)
    if request.forced:
        policy = ", ".join(f"{key}={value}" for key, value in request.forced.items())
        policy += f" or {APP_ARMOR_PROFILE_LABEL}={PROFILE_VERSION}" if request.app_armor else ""
        where += f", and with {policy} as the operator's policy demands,"
    return f"no Ready, schedulable node with {where}" + (" fits nodeSelector and affinity" if narrowed else "")


def _labels(placement: Placement, request: PlacementRequest) -> str:
    """Return the labels that the mode demands, without those that spec does."""
    return ", ".join(
        f"{key}={value}"
        for key, value in placement.node_selector
        if key == ARCH_LABEL or (key != OS_LABEL and request.node_selector.get(key) != value)
    )


def _no_emulator(request: PlacementRequest, policy: Policy) -> str:
    if rule := policy.emulation.refusal(request.namespace):
        return f"QEMU is not allowed by the operator's policy ({rule})"
    if policy.emulation.bundled:
        return "no Ready, schedulable Linux node for QEMU fits nodeSelector, tolerations and affinity"
    return (
        f"no node with {qemu_label(request.platforms[0].architecture)}=true for QEMU: "
        "label one whose kernel has it registered, or set emulation.bundled in the operator's policy"
    )
