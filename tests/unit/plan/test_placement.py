"""Where a builder goes, as tables: a cluster, what a build asks for, and what comes of it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.scheduling import Scheduling, Strategy
from multiarchbuild.api.status import Mode
from multiarchbuild.plan.children import Node
from multiarchbuild.plan.placement import Choice, choose, contradiction, placement_request
from multiarchbuild.plan.policy import Policy
from tests.unit.plan.world import BOTH, START, node

AMD64, ARM64 = "linux/amd64", "linux/arm64"
WAIT = timedelta(minutes=2)
QEMU = node("amd64", name="qemu", labels={"multiarch.build/qemu-arm64": "true"})
BUNDLED = {"emulation": {"bundled": True}}
NOT_BUNDLED = {"emulation": {"bundled": False}}
NOT_ALLOWED = {"emulation": {"allowed": False}}


def placed(
    nodes: Sequence[Node],
    *platforms: str,
    waited: timedelta = WAIT,
    policy: Mapping[str, Any] | None = None,
    **scheduling: Any,
) -> Choice:
    """Return where the builder of `platforms` goes after it has waited for so long."""
    names, own = platforms or (ARM64,), Policy.model_validate(policy or {})
    return choose(
        placement_request(
            Scheduling.model_validate(scheduling),
            tuple(map(Platform.parse, names)),
            names,
            forced=own.builder_nodes(""),
            app_armor=own.rootless.takes_app_armor,
        ),
        nodes,
        own,
        native_deadline=START + WAIT,
        now=START + waited,
    )


def labels(choice: Choice) -> dict[str, str]:
    """Return what the node must be labelled with, apart from its operating system."""
    found = dict(choice.placement.node_selector)
    assert found.pop("kubernetes.io/os") == "linux"
    return found


STRATEGIES: dict[str, tuple[str, Sequence[Node], Mapping[str, Any], Mode, Reason, dict[str, str]]] = {
    "auto, a native node": ("Auto", BOTH, {}, Mode.NATIVE, Reason.PENDING, {"kubernetes.io/arch": "arm64"}),
    "auto, a native node and QEMU": (
        "Auto",
        (QEMU, *BOTH),
        {},
        Mode.NATIVE,
        Reason.PENDING,
        {"kubernetes.io/arch": "arm64"},
    ),
    "auto, QEMU": ("Auto", (QEMU,), {}, Mode.EMULATED, Reason.PENDING, {"multiarch.build/qemu-arm64": "true"}),
    "auto, bundled QEMU": ("Auto", (node("amd64"),), BUNDLED, Mode.EMULATED, Reason.PENDING, {}),
    "auto, QEMU rather than the bundled one": (
        "Auto",
        (node("amd64"), QEMU),
        BUNDLED,
        Mode.EMULATED,
        Reason.PENDING,
        {"multiarch.build/qemu-arm64": "true"},
    ),
    "auto, bundled QEMU not allowed": (
        "Auto",
        (node("amd64"),),
        NOT_BUNDLED,
        Mode.NATIVE,
        Reason.NO_BUILDER,
        {"kubernetes.io/arch": "arm64"},
    ),
    "auto, QEMU where the bundled one is not allowed": (
        "Auto",
        (QEMU,),
        NOT_BUNDLED,
        Mode.EMULATED,
        Reason.PENDING,
        {"multiarch.build/qemu-arm64": "true"},
    ),
    "auto, QEMU not allowed": (
        "Auto",
        (QEMU,),
        NOT_ALLOWED,
        Mode.NATIVE,
        Reason.NO_BUILDER,
        {"kubernetes.io/arch": "arm64"},
    ),
    "auto, no node": ("Auto", (), {}, Mode.NATIVE, Reason.NO_BUILDER, {"kubernetes.io/arch": "arm64"}),
    "native, a native node": ("Native", BOTH, {}, Mode.NATIVE, Reason.PENDING, {"kubernetes.io/arch": "arm64"}),
    "native never falls back": (
        "Native",
        (QEMU,),
        BUNDLED,
        Mode.NATIVE,
        Reason.NO_BUILDER,
        {"kubernetes.io/arch": "arm64"},
    ),
    "emulated, QEMU": ("Emulated", (QEMU,), {}, Mode.EMULATED, Reason.PENDING, {"multiarch.build/qemu-arm64": "true"}),
    "emulated is never native": ("Emulated", BOTH, {}, Mode.EMULATED, Reason.PENDING, {}),
    "emulated, bundled QEMU not allowed": (
        "Emulated",
        BOTH,
        NOT_BUNDLED,
        Mode.EMULATED,
        Reason.NO_BUILDER,
        {"multiarch.build/qemu-arm64": "true"},
    ),
    "emulated, QEMU not allowed": (
        "Emulated",
        (QEMU,),
        NOT_ALLOWED,
        Mode.EMULATED,
        Reason.NO_BUILDER,
        {"multiarch.build/qemu-arm64": "true"},
    ),
    "emulated, no node: any that comes will do": ("Emulated", (), BUNDLED, Mode.EMULATED, Reason.NO_BUILDER, {}),
    "cross needs no node of the platform": ("Cross", (node("amd64"),), {}, Mode.CROSS, Reason.PENDING, {}),
    "cross asks for no QEMU": ("Cross", (node("amd64"),), NOT_ALLOWED, Mode.CROSS, Reason.PENDING, {}),
    "cross, no node": ("Cross", (), {}, Mode.CROSS, Reason.NO_BUILDER, {}),
}


@pytest.mark.parametrize(
    ("strategy", "nodes", "policy", "mode", "reason", "wanted"), STRATEGIES.values(), ids=STRATEGIES
)
def test_strategy(
    strategy: str,
    nodes: Sequence[Node],
    policy: Mapping[str, Any],
    mode: Mode,
    reason: Reason,
    wanted: dict[str, str],
) -> None:
    choice = placed(nodes, strategy=strategy, policy=policy)
    assert (choice.placement.mode, choice.reason, labels(choice)) == (mode, reason, wanted)
    assert choice.message, "it is never silent"
    assert choice.wait_until is None


WAITING: dict[str, tuple[timedelta, Sequence[Node], Mode, Reason]] = {
    "at once, QEMU at hand": (timedelta(), (QEMU,), Mode.NATIVE, Reason.WAITING_FOR_NATIVE_NODE),
    "a second before the end": (WAIT - timedelta(seconds=1), (QEMU,), Mode.NATIVE, Reason.WAITING_FOR_NATIVE_NODE),
    "at the end": (WAIT, (QEMU,), Mode.EMULATED, Reason.PENDING),
    "a native node has joined": (timedelta(seconds=30), (QEMU, *BOTH), Mode.NATIVE, Reason.PENDING),
    "a native node has joined after the end": (2 * WAIT, (QEMU, *BOTH), Mode.NATIVE, Reason.PENDING),
    "nothing to fall back to": (timedelta(), (), Mode.NATIVE, Reason.NO_BUILDER),
}


@pytest.mark.parametrize(("waited", "nodes", "mode", "reason"), WAITING.values(), ids=WAITING)
def test_auto_waits_for_a_native_node(waited: timedelta, nodes: Sequence[Node], mode: Mode, reason: Reason) -> None:
    choice = placed(nodes, waited=waited)
    assert (choice.placement.mode, choice.reason) == (mode, reason)
    waits = reason is Reason.WAITING_FOR_NATIVE_NODE
    assert choice.wait_until == (START + WAIT if waits else None), "it says when to look again"
    assert ("12:02:00 UTC" in choice.message) is waits


@pytest.mark.parametrize("strategy", ["Native", "Emulated", "Cross"])
def test_other_strategies_wait_for_nothing(strategy: str) -> None:
    assert placed((QEMU,), strategy=strategy, waited=timedelta()).wait_until is None


AARCH32 = {"multiarch.build/aarch32": "true"}
VARIANTS: dict[str, tuple[str, Node, bool]] = {
    "amd64 on amd64": ("linux/amd64", node("amd64"), True),
    "amd64 on arm64": ("linux/amd64", node("arm64"), False),
    "386 on amd64": ("linux/386", node("amd64"), True),
    "386 on 386": ("linux/386", node("386"), True),
    "386 on arm64": ("linux/386", node("arm64"), False),
    "arm64/v8 on arm64": ("linux/arm64/v8", node("arm64"), True),
    "arm/v7 on arm64": ("linux/arm/v7", node("arm64"), False),
    "arm/v7 on arm64 with aarch32": ("linux/arm/v7", node("arm64", labels=AARCH32), True),
    "arm/v7 on arm64 with aarch32=false": (
        "linux/arm/v7",
        node("arm64", labels={"multiarch.build/aarch32": "false"}),
        False,
    ),
    "arm/v6 on arm64 with aarch32": ("linux/arm/v6", node("arm64", labels=AARCH32), True),
    "arm/v5 on arm": ("linux/arm/v5", node("arm"), True),
    "arm/v7 on amd64 with aarch32": ("linux/arm/v7", node("amd64", labels=AARCH32), False),
    "amd64/v2 on amd64": ("linux/amd64/v2", node("amd64"), False),
    "amd64/v3 on amd64 that says so": (
        "linux/amd64/v3",
        node("amd64", labels={"multiarch.build/amd64-v3": "true"}),
        True,
    ),
    "amd64/v4 on amd64 that says v3": (
        "linux/amd64/v4",
        node("amd64", labels={"multiarch.build/amd64-v3": "true"}),
        False,
    ),
    "riscv64 on riscv64": ("linux/riscv64", node("riscv64"), True),
    "ppc64le on ppc64le": ("linux/ppc64le", node("ppc64le"), True),
    "s390x on s390x": ("linux/s390x", node("s390x"), True),
    "loong64 on loong64": ("linux/loong64", node("loong64"), True),
    "s390x on amd64": ("linux/s390x", node("amd64"), False),
    "amd64 on Windows": ("linux/amd64", node("amd64", labels={"kubernetes.io/os": "windows"}), False),
}


@pytest.mark.parametrize(("platform", "where", "native"), VARIANTS.values(), ids=VARIANTS)
def test_which_node_is_native(platform: str, where: Node, *, native: bool) -> None:
    choice = placed((where,), platform, strategy="Native")
    assert choice.reason is (Reason.PENDING if native else Reason.NO_BUILDER)
    assert choice.placement.mode is Mode.NATIVE
    if native:
        assert all(where.labels[key] == value for key, value in choice.placement.node_selector)


@pytest.mark.parametrize("platform", SUPPORTED)
def test_every_platform_has_a_native_node_and_a_qemu(platform: str) -> None:
    wanted = placed((), platform, strategy="Native")
    (made,) = (node("x", labels=dict(wanted.placement.node_selector)),)
    assert placed((made,), platform, strategy="Native").reason is Reason.PENDING
    architecture = platform.split("/")[1]
    emulating = node("sparc", labels={f"multiarch.build/qemu-{architecture}": "true"})
    assert placed((emulating,), platform, policy=NOT_BUNDLED).placement.mode is Mode.EMULATED


@pytest.mark.parametrize(
    ("nodes", "first"),
    [((), "arm64"), ((node("arm"),), "arm"), ((node("arm"), node("arm64", labels=AARCH32)), "arm64")],
)
def test_of_several_kinds_of_native_nodes_the_likeliest_is_taken(nodes: Sequence[Node], first: str) -> None:
    assert labels(placed(nodes, "linux/arm/v7", strategy="Native"))["kubernetes.io/arch"] == first


LOCALHOST = {"rootless": {"profile": "Localhost"}}
NAMED = {"rootless": {"profile": "Localhost", "appArmorProfile": "our-own"}}
SECCOMP, BOTH_PROFILES = {"multiarch.build/rootless-profile": "1"}, {"multiarch.build/rootless-apparmor": "1"}
PLAIN, STRICT = node("arm64", name="plain", labels=SECCOMP), node("arm64", name="strict", labels=BOTH_PROFILES)
CONFINED: dict[str, tuple[Mapping[str, Any], Sequence[Node], Reason, dict[str, str], str]] = {
    "unconfined, no profile": ({}, (STRICT,), Reason.PENDING, {}, ""),
    "the seccomp profile": (LOCALHOST, (PLAIN,), Reason.PENDING, SECCOMP, ""),
    "both profiles": (LOCALHOST, (STRICT,), Reason.PENDING, BOTH_PROFILES, "apparmor"),
    "rather both": (LOCALHOST, (PLAIN, STRICT), Reason.PENDING, BOTH_PROFILES, "apparmor"),
    "both, where the node is not ready": (
        LOCALHOST,
        (PLAIN, node("arm64", name="away", labels=BOTH_PROFILES, ready=False)),
        Reason.PENDING,
        SECCOMP,
        "",
    ),
    "neither": (LOCALHOST, BOTH, Reason.NO_BUILDER, SECCOMP, ""),
    "both of an older version": (
        LOCALHOST,
        (node("arm64", labels={"multiarch.build/rootless-apparmor": "0"}),),
        Reason.NO_BUILDER,
        SECCOMP,
        "",
    ),
    "one that the policy names is not that of the chart": (NAMED, (STRICT,), Reason.NO_BUILDER, SECCOMP, ""),
    "one that the policy names": (NAMED, (PLAIN, STRICT), Reason.PENDING, SECCOMP, ""),
}


@pytest.mark.parametrize(("policy", "nodes", "reason", "wanted", "slug"), CONFINED.values(), ids=CONFINED)
@pytest.mark.parametrize("strategy", ["Native", "Cross"])
def test_a_builder_goes_where_its_profiles_are(
    policy: Mapping[str, Any],
    nodes: Sequence[Node],
    reason: Reason,
    wanted: dict[str, str],
    slug: str,
    strategy: str,
) -> None:
    choice = placed(nodes, policy=policy, strategy=strategy)
    found = labels(choice)
    found.pop("kubernetes.io/arch", None)
    assert (choice.reason, found, choice.placement.slug) == (reason, wanted, slug)


def test_each_platform_has_the_profiles_of_its_nodes() -> None:
    nodes = (node("amd64", labels=BOTH_PROFILES), PLAIN)
    assert [placed(nodes, platform, policy=LOCALHOST).placement.slug for platform in (AMD64, ARM64)] == ["apparmor", ""]


def test_emulation_is_confined_likewise_and_told_apart() -> None:
    emulating = node("amd64", labels={**BOTH_PROFILES, "multiarch.build/qemu-arm64": "true"})
    assert placed((emulating,), policy=LOCALHOST, strategy="Emulated").placement.slug == "qemu-apparmor"


TAINT = ("dedicated", "builds", "NoSchedule")
FITTING: dict[str, tuple[Node, Mapping[str, Any], bool]] = {
    "ready": (node("arm64"), {}, True),
    "not ready": (node("arm64", ready=False), {}, False),
    "cordoned": (node("arm64", schedulable=False), {}, False),
    "nodeSelector holds": (node("arm64", labels={"pool": "a"}), {"nodeSelector": {"pool": "a"}}, True),
    "nodeSelector has another value": (node("arm64", labels={"pool": "b"}), {"nodeSelector": {"pool": "a"}}, False),
    "nodeSelector names a label it lacks": (node("arm64"), {"nodeSelector": {"pool": "a"}}, False),
    "one of two labels": (node("arm64", labels={"a": "1"}), {"nodeSelector": {"a": "1", "b": "2"}}, False),
    "tainted": (node("arm64", taints=[TAINT]), {}, False),
    "tainted NoExecute": (node("arm64", taints=[("gone", "", "NoExecute")]), {}, False),
    "tainted PreferNoSchedule": (node("arm64", taints=[("soft", "", "PreferNoSchedule")]), {}, True),
    "tolerated by key and value": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"key": "dedicated", "value": "builds"}]},
        True,
    ),
    "toleration of another value": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"key": "dedicated", "value": "web"}]},
        False,
    ),
    "toleration of another key": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"key": "other", "value": "builds"}]},
        False,
    ),
    "tolerated whatever its value": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
        True,
    ),
    "everything tolerated": (node("arm64", taints=[TAINT]), {"tolerations": [{"operator": "Exists"}]}, True),
    "tolerated with the effect": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]},
        True,
    ),
    "tolerated with another effect": (
        node("arm64", taints=[TAINT]),
        {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]},
        False,
    ),
    "one of two taints tolerated": (
        node("arm64", taints=[TAINT, ("gpu", "", "NoSchedule")]),
        {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        False,
    ),
    "both taints tolerated": (
        node("arm64", taints=[TAINT, ("gpu", "", "NoSchedule")]),
        {"tolerations": [{"key": "gpu", "operator": "Exists"}, {"key": "dedicated", "operator": "Exists"}]},
        True,
    ),
}


@pytest.mark.parametrize("strategy", ["Native", "Emulated", "Cross"])
@pytest.mark.parametrize(("where", "asked", "fits"), FITTING.values(), ids=FITTING)
def test_which_node_fits(where: Node, asked: Mapping[str, Any], strategy: str, *, fits: bool) -> None:
    choice = placed((where,), strategy=strategy, **asked)
    assert choice.reason is (Reason.PENDING if fits else Reason.NO_BUILDER)


def requirement(operator: str, *values: str, key: str = "size") -> dict[str, Any]:
    """Return one requirement on a node's label."""
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def required(*terms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the affinity for nodes on which one of these terms holds."""
    listed = [{"matchExpressions": list(term)} for term in terms]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": listed}}}


AFFINITY: dict[str, tuple[dict[str, str], dict[str, Any], bool]] = {
    "In, one of them": ({"size": "m"}, required([requirement("In", "m", "l")]), True),
    "In, none of them": ({"size": "s"}, required([requirement("In", "m", "l")]), False),
    "In, no such label": ({}, required([requirement("In", "m")]), False),
    "NotIn, another": ({"size": "s"}, required([requirement("NotIn", "m")]), True),
    "NotIn, no such label": ({}, required([requirement("NotIn", "m")]), True),
    "NotIn, this one": ({"size": "m"}, required([requirement("NotIn", "m")]), False),
    "Exists": ({"size": ""}, required([requirement("Exists")]), True),
    "Exists, no such label": ({}, required([requirement("Exists")]), False),
    "DoesNotExist": ({}, required([requirement("DoesNotExist")]), True),
    "DoesNotExist, though it does": ({"size": ""}, required([requirement("DoesNotExist")]), False),
    "Gt, more": ({"size": "10"}, required([requirement("Gt", "9")]), True),
    "Gt, the same": ({"size": "9"}, required([requirement("Gt", "9")]), False),
    "Gt, no number": ({"size": "big"}, required([requirement("Gt", "9")]), False),
    "Gt, no such label": ({}, required([requirement("Gt", "9")]), False),
    "Gt, compared with no number": ({"size": "10"}, required([requirement("Gt", "many")]), False),
    "Lt, less": ({"size": "9"}, required([requirement("Lt", "10")]), True),
    "Lt, the same": ({"size": "10"}, required([requirement("Lt", "10")]), False),
    "all of a term": (
        {"size": "m", "zone": "a"},
        required([requirement("Exists"), requirement("In", "a", key="zone")]),
        True,
    ),
    "one of a term": (
        {"size": "m", "zone": "b"},
        required([requirement("Exists"), requirement("In", "a", key="zone")]),
        False,
    ),
    "one of two terms": ({"zone": "a"}, required([requirement("Exists")], [requirement("In", "a", key="zone")]), True),
    "none of two terms": (
        {"zone": "b"},
        required([requirement("Exists")], [requirement("In", "a", key="zone")]),
        False,
    ),
    "preferred is not required": (
        {},
        {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [requirement("Exists")]}}
                ]
            }
        },
        True,
    ),
    "empty": ({}, {}, True),
}


@pytest.mark.parametrize(("has", "affinity", "fits"), AFFINITY.values(), ids=AFFINITY)
def test_affinity(has: dict[str, str], affinity: dict[str, Any], *, fits: bool) -> None:
    choice = placed((node("arm64", labels=has),), strategy="Native", affinity=affinity)
    assert choice.reason is (Reason.PENDING if fits else Reason.NO_BUILDER)


OVERRIDES: dict[str, tuple[dict[str, Any], Mode, Reason]] = {
    "strategy": ({"strategy": "Emulated"}, Mode.EMULATED, Reason.PENDING),
    "nodeSelector in addition": ({"nodeSelector": {"pool": "graviton"}}, Mode.NATIVE, Reason.NO_BUILDER),
    "nodeSelector instead of the same label": ({"nodeSelector": {"zone": "b"}}, Mode.NATIVE, Reason.NO_BUILDER),
    "tolerations in addition": ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, Mode.NATIVE, Reason.PENDING),
    "nothing": ({}, Mode.NATIVE, Reason.PENDING),
}


@pytest.mark.parametrize(("override", "mode", "reason"), OVERRIDES.values(), ids=OVERRIDES)
def test_override_for_a_platform(override: dict[str, Any], mode: Mode, reason: Reason) -> None:
    scheduling: dict[str, Any] = {
        "strategy": "Native",
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    }
    nodes = tuple(node(each, labels={"zone": "a"}, taints=[TAINT]) for each in ("amd64", "arm64"))
    overridden: dict[str, Any] = {**scheduling, "overrides": [{"platform": ARM64, **override}]}
    choice = placed(nodes, **overridden)
    assert (choice.placement.mode, choice.reason) == (mode, reason)
    assert placed(nodes, AMD64, **overridden) == placed(nodes, AMD64, **scheduling), "the other platform has none"


@pytest.mark.parametrize("platform", [AMD64, ARM64])
def test_a_builder_of_several_platforms_has_no_override(platform: str) -> None:
    overrides = [{"platform": platform, "nodeSelector": {"pool": "graviton"}}]
    assert placed(BOTH, AMD64, ARM64, strategy="Cross", overrides=overrides).reason is Reason.PENDING


ARCHITECTURE = "kubernetes.io/arch"
EXCLUDED: dict[str, tuple[str, dict[str, Any], Mapping[str, Any], str]] = {
    "native, another architecture": (ARM64, {"strategy": "Native"}, {}, "set its strategy to Auto"),
    "auto, QEMU not allowed": (ARM64, {}, NOT_ALLOWED, f"{ARCHITECTURE}=arm64"),
    "auto, QEMU not allowed, is told": (ARM64, {}, NOT_ALLOWED, "QEMU is not allowed by the operator's policy"),
    "native, neither of two": (
        "linux/arm/v7",
        {"strategy": "Native"},
        {},
        f"{ARCHITECTURE}=arm64, multiarch.build/aarch32=true or {ARCHITECTURE}=arm:",
    ),
    "auto, QEMU": (ARM64, {}, {}, ""),
    "emulated": (ARM64, {"strategy": "Emulated"}, {}, ""),
    "cross": (ARM64, {"strategy": "Cross"}, {}, ""),
    "native, its architecture": (AMD64, {"strategy": "Native"}, {}, ""),
    "native, overridden": (
        ARM64,
        {"strategy": "Native", "overrides": [{"platform": ARM64, "nodeSelector": {ARCHITECTURE: "arm64"}}]},
        {},
        "",
    ),
}


@pytest.mark.parametrize(("platform", "scheduling", "policy", "said"), EXCLUDED.values(), ids=EXCLUDED)
def test_a_node_selector_for_another_architecture(
    platform: str, scheduling: dict[str, Any], policy: Mapping[str, Any], said: str
) -> None:
    asked = Scheduling.model_validate({"nodeSelector": {ARCHITECTURE: "amd64"}, **scheduling})
    wanted = placement_request(asked, (Platform.parse(platform),), (platform,))
    message = contradiction(wanted, Policy.model_validate(policy))
    assert said in message
    assert bool(message) is bool(said)


def test_auto_waits_for_no_native_node_that_node_selector_excludes() -> None:
    choice = placed(BOTH, waited=timedelta(), nodeSelector={ARCHITECTURE: "amd64"})
    assert (choice.placement.mode, choice.reason) == (Mode.EMULATED, Reason.PENDING)
    assert labels(choice) == {ARCHITECTURE: "amd64"}, "what spec demands is in the pod's nodeSelector too"
    assert "using QEMU" in choice.message


def test_node_selector_is_in_every_placement() -> None:
    for strategy in Strategy:
        assert labels(placed((), strategy=strategy, nodeSelector={"pool": "a"}))["pool"] == "a"


MESSAGES: dict[str, tuple[Sequence[Node], Mapping[str, Any], Mapping[str, Any], tuple[str, ...]]] = {
    "native": ((QEMU,), {"strategy": "Native"}, {}, ("kubernetes.io/arch=arm64", "scheduling.strategy to Auto")),
    "native, narrowed": (
        BOTH,
        {"strategy": "Native", "nodeSelector": {"pool": "x"}},
        {},
        ("kubernetes.io/arch=arm64", "fits nodeSelector and affinity"),
    ),
    "emulated": (BOTH, {"strategy": "Emulated"}, NOT_BUNDLED, ("multiarch.build/qemu-arm64=true", "emulation.bundled")),
    "emulated, not allowed": (BOTH, {"strategy": "Emulated"}, NOT_ALLOWED, ("policy", "emulation.allowed")),
    "auto, neither": ((), {}, NOT_BUNDLED, ("kubernetes.io/arch=arm64", "multiarch.build/qemu-arm64=true")),
    "auto, no node at all": ((), {}, BUNDLED, ("kubernetes.io/arch=arm64", "Linux node for QEMU")),
    "auto, waiting": ((QEMU,), {}, {}, ("kubernetes.io/arch=arm64", "scheduling.nativeWait", "QEMU")),
    "cross": ((), {"strategy": "Cross"}, {}, ("Linux node", "nodeSelector, tolerations and affinity")),
}


@pytest.mark.parametrize(("nodes", "scheduling", "policy", "said"), MESSAGES.values(), ids=MESSAGES)
def test_what_is_missing_is_named_with_its_remedy(
    nodes: Sequence[Node], scheduling: Mapping[str, Any], policy: Mapping[str, Any], said: tuple[str, ...]
) -> None:
    message = placed(nodes, policy=policy, waited=timedelta(), **scheduling).message
    assert all(words in message for words in said), message


def test_a_fallback_to_qemu_says_why() -> None:
    assert placed((QEMU,)).message == "no Ready, schedulable node with kubernetes.io/arch=arm64: using QEMU"
