"""Where each platform may go: what an architecture's label says, and what only the node itself can say."""

from collections.abc import Mapping

import pytest

from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.scheduling import Scheduling, Strategy
from multiarchbuild.api.status import Mode
from multiarchbuild.plan.children import Node
from multiarchbuild.plan.placement import Choice, choose, placement_request
from multiarchbuild.plan.policy import Emulation, Policy
from tests.unit.plan.world import START, node

AARCH32 = {"multiarch.build/aarch32": "true"}


def placed(platform: str, *nodes: Node, strategy: Strategy = Strategy.AUTO, policy: Policy | None = None) -> Choice:
    """Return where `platform` goes at once, without a wait for a native node."""
    scheduling = Scheduling(strategy=strategy, native_wait="0s")
    wanted = placement_request(scheduling, (Platform.parse(platform),), (platform,), "team-a")
    return choose(wanted, nodes, policy or Policy(), native_deadline=START, now=START)


def labels(choice: Choice) -> Mapping[str, str]:
    return dict(choice.placement.node_selector)


@pytest.mark.parametrize(
    ("platform", "nodes", "mode", "needs"),
    [
        ("linux/386", [node("amd64")], Mode.NATIVE, {"kubernetes.io/arch": "amd64"}),
        ("linux/arm64/v8", [node("arm64")], Mode.NATIVE, {"kubernetes.io/arch": "arm64"}),
        ("linux/arm/v7", [node("arm64", labels=AARCH32)], Mode.NATIVE, AARCH32),
        ("linux/arm/v6", [node("arm64", labels=AARCH32)], Mode.NATIVE, AARCH32),
        ("linux/arm/v7", [node("arm")], Mode.NATIVE, {"kubernetes.io/arch": "arm"}),
        # Many arm64 servers can't run 32-bit programs: without the label that is not tried.
        ("linux/arm/v7", [node("arm64")], Mode.EMULATED, {}),
        ("linux/amd64/v3", [node("amd64", labels={"multiarch.build/amd64-v3": "true"})], Mode.NATIVE, {}),
        ("linux/amd64/v3", [node("amd64", labels={"multiarch.build/amd64-v2": "true"})], Mode.EMULATED, {}),
        ("linux/amd64/v4", [node("amd64")], Mode.EMULATED, {}),
        ("linux/riscv64", [node("amd64"), node("riscv64")], Mode.NATIVE, {"kubernetes.io/arch": "riscv64"}),
        ("linux/ppc64le", [node("amd64"), node("ppc64le")], Mode.NATIVE, {"kubernetes.io/arch": "ppc64le"}),
        ("linux/s390x", [node("amd64"), node("s390x")], Mode.NATIVE, {"kubernetes.io/arch": "s390x"}),
        ("linux/s390x", [node("amd64")], Mode.EMULATED, {}),
    ],
)
def test_a_platform_goes_where_it_runs(platform: str, nodes: list[Node], mode: Mode, needs: Mapping[str, str]) -> None:
    choice = placed(platform, *nodes)
    assert (choice.placement.mode, choice.reason) == (mode, Reason.PENDING)
    assert needs.items() <= labels(choice).items()
    assert any(labels(choice).items() <= each.labels.items() for each in nodes), "the pod fits one of the nodes"


@pytest.mark.parametrize("platform", [name for name in SUPPORTED if name.startswith("linux/")])
def test_strategy_native_never_falls_back(platform: str) -> None:
    choice = placed(platform, node("mips64le"), strategy=Strategy.NATIVE)
    assert (choice.placement.mode, choice.reason) == (Mode.NATIVE, Reason.NO_BUILDER)
    assert choice.message.startswith("no Ready, schedulable node with kubernetes.io/arch=")


@pytest.mark.parametrize("platform", [name for name in SUPPORTED if name.startswith("linux/")])
def test_strategy_emulated_never_is_native(platform: str) -> None:
    architecture = Platform.parse(platform).architecture
    choice = placed(platform, node(architecture), strategy=Strategy.EMULATED)
    assert choice.placement.mode is Mode.EMULATED


@pytest.mark.parametrize("platform", SUPPORTED)
def test_strategy_cross_takes_any_linux_node(platform: str) -> None:
    choice = placed(platform, node("riscv64"), strategy=Strategy.CROSS)
    assert (choice.placement.mode, labels(choice)) == (Mode.CROSS, {"kubernetes.io/os": "linux"})


def test_labelled_nodes_only_where_the_policy_says_so() -> None:
    strict = Policy(emulation=Emulation(bundled=False))
    assert placed("linux/s390x", node("amd64"), policy=strict).reason is Reason.NO_BUILDER
    labelled = node("amd64", labels={"multiarch.build/qemu-s390x": "true"})
    choice = placed("linux/s390x", node("arm64"), labelled, policy=strict)
    assert labels(choice) == {"kubernetes.io/os": "linux", "multiarch.build/qemu-s390x": "true"}


@pytest.mark.parametrize(("namespaces", "reason"), [(("team-*",), Reason.PENDING), (("lab",), Reason.NO_BUILDER)])
def test_qemu_only_in_namespaces_that_the_policy_names(namespaces: tuple[str, ...], reason: Reason) -> None:
    choice = placed("linux/s390x", node("amd64"), policy=Policy(emulation=Emulation(namespaces=namespaces)))
    assert choice.reason is reason


def test_windows_and_linux_builders_have_names_of_their_own() -> None:
    assert Platform.parse("windows/amd64").slug != Platform.parse("linux/amd64").slug
