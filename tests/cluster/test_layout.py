import os
import subprocess
import sys
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from tests.cluster import lifecycle, network
from tests.cluster.cli import _parser, wanted_from
from tests.cluster.errors import ClusterError
from tests.cluster.layout import (
    CHECKOUT,
    DEFAULT_INSTANCE,
    MAX_NODES_PER_ARCH,
    Addresses,
    Arch,
    Node,
    cache_directory,
    layout,
    parse_label,
    parse_nodes,
)
from tests.cluster.lifecycle import Wanted, normalized
from tests.cluster.network import conflict


def test_networks_of_machines_pods_and_services_never_overlap() -> None:
    addresses = Addresses(IPv4Network("10.250.0.0/16"))
    nodes = [Node(arch, ordinal) for arch in Arch for ordinal in range(1, MAX_NODES_PER_ARCH + 1)]
    networks = [addresses.machines, addresses.services, *(addresses.node_pods(node.index) for node in nodes)]
    assert all(network.subnet_of(addresses.network) for network in networks)
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    machines = [addresses.host, addresses.control, *(addresses.node(node.index) for node in nodes)]
    assert len(set(machines)) == len(machines)
    assert all(address in addresses.machines for address in machines)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("amd64=1,arm64=1", ["n-amd64", "n-arm64"]),
        ("amd64=2,arm64=0", ["n-amd64", "n-amd64-2"]),
        ("arm64=1", ["n-arm64"]),
        ("", []),
    ],
)
def test_nodes_are_read(text: str, names: list[str]) -> None:
    assert [node.name for node in parse_nodes(text)] == names


@pytest.mark.parametrize("text", ["riscv64=1", "amd64", "amd64=-1", "amd64=33", "amd64=x"])
def test_bad_nodes_are_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="ARCH=COUNT"):
        parse_nodes(text)


def test_label_is_read() -> None:
    assert parse_label("n-amd64:multiarch.build/qemu-arm64=true") == (
        "n-amd64",
        "multiarch.build/qemu-arm64",
        "true",
    )
    with pytest.raises(ClusterError, match="NODE:KEY=VALUE"):
        parse_label("n-amd64")


@pytest.mark.parametrize("name", ["", "Upper", "with-dash", "ninechars", "1a"])
def test_bad_instance_names_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="instance name"):
        layout(instance=name)


@pytest.mark.parametrize("network", ["10.250.0.0/24", "10.250.0.1/16", "x"])
def test_bad_networks_are_refused(network: str) -> None:
    with pytest.raises(ClusterError, match="network"):
        layout(network=network)


def test_instances_share_no_name() -> None:
    one, other = layout(), layout(instance="two", network="10.251.0.0/16")
    for attribute in ("registry", "secure_registry", "bridge", "nft_table", "state", "hosts_line"):
        assert getattr(one, attribute) != getattr(other, attribute)


def test_instances_that_the_environment_names_have_a_folder_each() -> None:
    program = [sys.executable, "-c", "from tests.cluster.layout import layout; print(layout().state)"]
    states = {
        subprocess.run(
            program, cwd=CHECKOUT, env={**os.environ, **own}, capture_output=True, text=True, check=True
        ).stdout
        for own in ({"MAB_INSTANCE": "one"}, {"MAB_INSTANCE": "two"}, {"MAB_INSTANCE": DEFAULT_INSTANCE})
    }
    assert len(states) == 3


def test_default_instance_has_the_documented_names() -> None:
    default = layout(instance=DEFAULT_INSTANCE)
    assert default.registry == "registry.cluster.test:5000"
    assert default.secure_registry == "secure.cluster.test:5443"


def test_cache_directory() -> None:
    assert cache_directory({"MAB_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert cache_directory({"XDG_CACHE_HOME": "/x"}) == Path("/x/multiarchbuild")
    assert cache_directory({}) == Path.home() / ".cache/multiarchbuild"


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("node:20-alpine", "docker.io/library/node:20-alpine"),
        ("moby/buildkit:v0.32.2", "docker.io/moby/buildkit:v0.32.2"),
        ("registry.cluster.test:5000/a:1", "registry.cluster.test:5000/a:1"),
        ("localhost/a:1", "localhost/a:1"),
    ],
)
def test_references_are_normalized(reference: str, full: str) -> None:
    assert normalized(reference) == full


def test_network_of_somebody_else_is_named() -> None:
    routes = [{"dst": "default", "dev": "eth0"}, {"dst": "10.250.7.0/24", "dev": "vpn0"}]
    problem = conflict(layout(), routes)
    assert "10.250.7.0/24 on vpn0" in problem
    assert "--network" in problem


def test_own_routes_are_no_conflict() -> None:
    own = layout()
    routes = [{"dst": "10.250.0.0/24", "dev": own.bridge}, {"dst": "192.0.2.0/24", "dev": "eth0"}]
    assert conflict(own, routes) == ""


def test_what_options_leave_open_stays() -> None:
    stored = Wanted(parse_nodes("amd64=2"), {"n-amd64-2": {"a": "b"}}, kwok=3)
    assert wanted_from(_parser().parse_args(["up"]), stored) == stored
    fewer = wanted_from(_parser().parse_args(["up", "--nodes", "amd64=1", "--kwok", "0"]), stored)
    assert fewer == Wanted(parse_nodes("amd64=1"), {}, kwok=0)
    labelled = wanted_from(_parser().parse_args(["up", "--label", "n-amd64:k=v"]), stored)
    assert labelled.labels == {"n-amd64": {"k": "v"}, "n-amd64-2": {"a": "b"}}


def test_label_of_no_node_is_refused() -> None:
    with pytest.raises(ClusterError, match="--label names n-riscv64"):
        wanted_from(_parser().parse_args(["up", "--label", "n-riscv64:k=v"]), None)


def test_an_unused_network_is_the_same_each_time_and_overlaps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    routes: list[dict[str, str]] = []
    monkeypatch.setattr(network, "_routes", lambda: routes)
    first = network.unused("a")
    routes += [{"dst": "default"}, {"dst": first, "dev": "a-br"}]
    assert network.unused("a") == first, "its own bridge is not in its way"
    routes.append({"dst": str(IPv4Network(first)[300]), "dev": "eth1"})
    second = network.unused("a")
    assert not IPv4Network(second).overlaps(IPv4Network(first))
    routes.append({"dst": "10.0.0.0/8", "dev": "eth0"})
    with pytest.raises(ClusterError, match="name a network"):
        network.unused("a")


def test_other_instances_of_the_checkout_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "STATE", tmp_path)
    assert lifecycle.others() == ()
    for name in ("two", "one"):
        (tmp_path / "instances" / name).mkdir(parents=True)
    assert [layout.instance for layout in lifecycle.others()] == ["one", "two"]
