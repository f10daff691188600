"""Bringing up, repairing, changing and taking down, on an instance of its own beside the one in use."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import cgroups, cli, lifecycle, network
from tests.cluster.errors import ClusterError
from tests.cluster.fixture import bring_up
from tests.cluster.kubectl import Kubectl, all_ready
from tests.cluster.layout import CHECKOUT, OWN_INSTANCE, Layout, parse_nodes
from tests.cluster.lifecycle import Wanted
from tests.cluster.machine import Machine
from tests.cluster.processes import Process, run
from tests.support.pace import slowness

# What is left behind is looked for on the whole machine: one of these tests at a time.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("lifecycle")]

INSTANCE = f"{OWN_INSTANCE[:6]}t"
NETWORK = network.unused(INSTANCE)
ONE_NODE = Wanted(parse_nodes("amd64=1"))
OTHER = re.compile(rf"(?!{INSTANCE}\b)[a-z][a-z0-9]{{0,7}}")
"""Name of another instance: those come and go meanwhile."""
UP = [sys.executable, "-m", "tests.cluster", "up", "--instance", INSTANCE, "--network", NETWORK]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = Traces.now()
    yield
    lifecycle.down(instance())
    lifecycle.down(instance())
    assert Traces.now() == before
    assert not cgroups.processes(INSTANCE)
    assert not instance().state.exists()


@dataclass(frozen=True)
class Traces:
    """What a cluster could leave on the machine, without what is other clusters'."""

    namespaces: str
    mounts: frozenset[str]
    links: frozenset[str]
    routes: str
    nft: str
    iptables: str
    cgroups: frozenset[str]
    hosts: str
    ip_forward: str
    binfmt: frozenset[str]

    @classmethod
    def now(cls) -> "Traces":
        links = frozenset(path.name for path in Path("/sys/class/net").iterdir())
        others = frozenset(filter(re.compile(rf"{OTHER.pattern}-(br|new|v\d+)").fullmatch, links))
        routes = run(["ip", "route", "show", "table", "all"]).splitlines()
        rules = [
            entry
            for rule in json.loads(run(["nft", "-json", "list", "ruleset"]))["nftables"]
            for entry in rule.values()
        ]
        table = re.compile(f"multiarchbuild_{OTHER.pattern}")
        hosts = Path("/etc/hosts").read_text().splitlines()
        handlers = Path("/proc/sys/fs/binfmt_misc")
        # Whoever builds meanwhile, such as the tests of the steps, mounts what it likes elsewhere.
        mounts = re.findall(rf".*(?:{INSTANCE}| /sys/| /proc/).*", Path("/proc/self/mounts").read_text())
        tops = {
            str(path) for tree in cgroups.hierarchies() for path in tree.iterdir() if path.name.startswith(INSTANCE)
        }
        return cls(
            namespaces=run(["ip", "netns", "list"]),
            mounts=frozenset(mounts),
            links=links - others,
            routes="\n".join(line for line in routes if not others.intersection(line.split())),
            nft=json.dumps([rule for rule in rules if not table.fullmatch(rule.get("table", rule.get("name", "")))]),
            iptables="".join(line for line in run(["iptables-save"]).splitlines() if not line.startswith("#")),
            cgroups=frozenset(tops),
            hosts="\n".join(
                line for line in hosts if not re.search(f"# multiarchbuild cluster {OTHER.pattern}$", line)
            ),
            # The last cluster puts it back.
            ip_forward="" if others else Path("/proc/sys/net/ipv4/ip_forward").read_text(),
            binfmt=frozenset(path.name for path in handlers.iterdir() if INSTANCE in path.name),
        )


def instance() -> Layout:
    return lifecycle.find(instance=INSTANCE, network=NETWORK)


def client(layout: Layout) -> Kubectl:
    return Kubectl(layout.bin / "kubectl", layout.kubeconfig)


def kill_program(machine: Machine, name: str) -> None:
    for pid in cgroups.processes(machine.layout.instance, machine.name):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(f"/{name}".encode()):
                os.kill(pid, signal.SIGKILL)


def test_nodes_join_stop_start_and_leave_a_running_cluster() -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    kubectl = client(layout)
    uid = kubectl.nodes()["n-amd64"]["metadata"]["uid"]

    cluster = bring_up(
        layout, Wanted(parse_nodes("amd64=2,arm64=1"), {"n-amd64": {"multiarch.build/qemu-arm64": "true"}})
    )
    nodes = kubectl.nodes()
    assert nodes.keys() == {"n-amd64", "n-amd64-2", "n-arm64"}
    assert nodes["n-amd64"]["metadata"]["uid"] == uid
    assert nodes["n-amd64"]["metadata"]["labels"]["multiarch.build/qemu-arm64"] == "true"
    assert Machine(layout, "n-amd64").services()["kubelet"]["starts"] == 1

    cluster.stop_node("n-amd64-2")
    kubectl.wait("stopped node seen", lambda: not all_ready(kubectl.nodes(), ["n-amd64-2"]), timeout=240)
    cluster.start_node("n-amd64-2")
    kubectl.wait("started node Ready", lambda: all_ready(kubectl.nodes(), ["n-amd64-2"]), timeout=240)

    assert cluster.set_nodes("arm64=1").nodes_of("arm64") == ("n-arm64",)
    assert kubectl.nodes().keys() == {"n-arm64"}


def test_killed_programs_come_back_and_nothing_is_forgotten() -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    kubectl = client(layout)
    kubectl("create", "configmap", "kept")
    control, node = Machine(layout, "control"), Machine(layout, "n-amd64")
    for machine, program in ((control, "etcd"), (control, "kube-apiserver"), (node, "containerd"), (node, "kubelet")):
        kill_program(machine, program)
    kubectl.wait(
        "programs started again",
        lambda: (
            all(control.services()[name]["starts"] > 1 for name in ("etcd", "kube-apiserver"))  # type: ignore[operator]
            and kubectl.ready()
        ),
        timeout=240,
    )
    bring_up(layout, ONE_NODE)
    kubectl("get", "configmap", "kept")


@pytest.mark.parametrize("name", ["control", "n-amd64"])
def test_up_starts_a_dead_machine(name: str) -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    client(layout)("create", "configmap", "kept")
    process = Machine(layout, name).process()
    assert process is not None
    process.kill()
    assert cli.main(["status", "--instance", INSTANCE]) == 1
    bring_up(layout, ONE_NODE)
    client(layout)("get", "configmap", "kept")


def kubelet(node: str) -> int:
    """Return the process id of a node's kubelet."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_kubelet = path.joinpath("cmdline").read_bytes().partition(b"\0")[0].endswith(b"/kubelet")
            if is_kubelet and f"/{INSTANCE}/{node}" in path.joinpath("cgroup").read_text(encoding="utf-8"):
                return int(path.name)
    raise AssertionError(f"{node} has no kubelet")


def test_up_starts_a_node_again_whose_kubelet_hangs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    os.kill(kubelet("n-amd64"), signal.SIGSTOP)
    kubectl = client(layout)
    kubectl.wait("silent node seen", lambda: not all_ready(kubectl.nodes(), ["n-amd64"]), timeout=240)
    monkeypatch.setattr(lifecycle, "NODE_PATIENCE", 3.0)
    bring_up(layout, ONE_NODE)
    assert "starting again those that are not" in capsys.readouterr().out


def test_up_starts_over_where_the_state_is_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    Machine(layout, "control").power_off()
    for path in (layout.machines / "control/etcd/member").rglob("*.wal"):
        path.write_bytes(b"broken")
    (layout.machines / "control/etcd/member/snap/db").write_bytes(b"broken")
    bring_up(layout, ONE_NODE)
    assert "starting over" in capsys.readouterr().out


def test_up_after_the_state_was_removed_by_hand() -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    run(["rm", "-r", layout.state])
    bring_up(layout, ONE_NODE)
    run(["rm", "-r", layout.state])


def test_cluster_of_another_checkout_is_respected_until_it_is_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring_up(instance(), ONE_NODE)
    arguments = ["--instance", INSTANCE, "--state", str(tmp_path / "state")]
    for command in (["up", *arguments, "--network", NETWORK], ["down", *arguments]):
        assert cli.main(command) == 1
        assert f"runs from {instance().state}" in capsys.readouterr().err
    for process in filter(None, map(Process.of, cgroups.processes(INSTANCE))):
        process.kill()
    assert cli.main(["up", *arguments, "--network", NETWORK, "--nodes", "amd64=1"]) == 0
    assert "removing what is left" in capsys.readouterr().out
    assert cli.main(["down", *arguments]) == 0


@pytest.mark.parametrize("seconds", [0.4, 0.7, 1.0, 1.5, 2.5])
def test_start_that_was_cut_off_is_taken_down_or_finished(seconds: float) -> None:
    for finish in (False, True):
        with subprocess.Popen(UP, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
            threading.Timer(seconds, starting.kill).start()
        if finish:
            bring_up(instance(), ONE_NODE)
        else:
            lifecycle.down(instance())


def test_two_starts_at_once() -> None:
    both = [subprocess.Popen(UP, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].count("is up") for process in both] == [1, 1]
    assert [process.returncode for process in both] == [0, 0]


def test_taken_network_and_taken_name_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["up", "--instance", INSTANCE, "--network", NETWORK]
    run(["ip", "link", "add", f"{INSTANCE}-br", "type", "bridge"])
    try:
        assert cli.main(arguments) == 1
        assert f"link {INSTANCE}-br exists and is not this tool" in capsys.readouterr().err
        assert cli.main(["down", "--instance", INSTANCE]) == 1
        assert Path(f"/sys/class/net/{INSTANCE}-br").exists()
        run(["ip", "address", "add", NETWORK.replace(".0.0/16", ".9.1/24"), "dev", f"{INSTANCE}-br"])
        run(["ip", "link", "set", f"{INSTANCE}-br", "up", "name", f"{INSTANCE}x"])
        assert cli.main(arguments) == 1
        assert "--network" in capsys.readouterr().err
    finally:
        for name in (f"{INSTANCE}-br", f"{INSTANCE}x"):
            if Path("/sys/class/net", name).exists():
                run(["ip", "link", "delete", name])


def test_full_disk_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path])
    try:
        arguments = ["--instance", INSTANCE, "--state", str(tmp_path / "state")]
        assert cli.main(["up", *arguments, "--network", NETWORK]) == 1
        assert "no space left" in capsys.readouterr().err
        assert cli.main(["down", *arguments]) == 0
    finally:
        run(["umount", tmp_path])


def test_simulated_nodes() -> None:
    layout = instance()
    bring_up(layout, Wanted(parse_nodes("amd64=1"), kwok=10))
    kubectl = client(layout)
    names = [f"kwok-{number}" for number in range(10)]
    kubectl.wait("simulated nodes Ready", lambda: all_ready(kubectl.nodes(), names), timeout=240)
    bring_up(layout, ONE_NODE)
    assert kubectl.nodes().keys() == {"n-amd64"}


def test_network_of_a_running_instance_cannot_change() -> None:
    layout = instance()
    bring_up(layout, ONE_NODE)
    with pytest.raises(ClusterError, match="take it down first"):
        lifecycle.find(instance=INSTANCE, network="10.199.0.0/16")
    started = time.monotonic()
    assert cli.main(["up", "--instance", INSTANCE]) == 0
    took = time.monotonic() - started
    assert took <= 3 * slowness()
