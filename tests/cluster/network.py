"""The instance's network on the host: one bridge and one nftables table.

Every link of a machine is one end of a veth pair whose other end is in the machine's own network namespace, so it
goes when the machine goes. Everything else here is found by name and marked as ours.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout, layout
from tests.cluster.processes import run
from tests.cluster.spec import MachineSpec

MARK = "multiarchbuild cluster "


def conflict(layout: Layout, routes: Sequence[dict[str, Any]]) -> str:
    """Says which network of this machine overlaps the instance's, "" if none does. Pure.

    Args:
        layout: of the instance.
        routes: `ip -json -4 route show table all`.
    """
    for route in routes:
        if route.get("dev") == layout.bridge or route["dst"] == "default":
            continue
        destination = IPv4Network(route["dst"], strict=False)
        if destination.overlaps(layout.addresses.network):
            return (
                f"network {layout.addresses.network} overlaps {destination} on {route.get('dev', 'this machine')}: "
                "choose a free one with --network A.B.0.0/16"
            )
    return ""


def check(layout: Layout) -> None:
    """Raises ClusterError where addresses of the instance are taken by something else."""
    if problem := conflict(layout, _routes()):
        raise ClusterError(problem)


def unused(instance: str) -> str:
    """Returns a network for an instance that no other uses: for the same name the same one, as long as it is free.

    Raises:
        ClusterError: where there is none.
    """
    routes, first = _routes(), zlib.crc32(instance.encode())
    for number in range(100):
        network = f"10.{100 + (first + number) % 100}.0.0/16"
        if not conflict(layout(instance=instance, network=network), routes):
            return network
    raise ClusterError("all of 10.100.0.0/14 to 10.196.0.0/14 is in use on this machine: name a network")


def _routes() -> list[dict[str, Any]]:
    return list(json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"))


def owner(layout: Layout) -> Path | None:
    """Returns the state directory of the cluster that has the instance's bridge, None where there is no bridge.

    Raises:
        ClusterError: where the bridge is no cluster's.
    """
    link = Path("/sys/class/net", layout.bridge)
    if not link.exists():
        return None
    mark = (link / "ifalias").read_text().strip()
    if not mark.startswith(MARK):
        raise ClusterError(
            f"link {layout.bridge} exists and is not this tool's: remove it, or choose another name with "
            "--instance NAME --network A.B.0.0/16"
        )
    return Path(mark.removeprefix(MARK))


@dataclass(frozen=True)
class Uplink:
    """How the host reaches the rest of the world.

    Attributes:
        mtu: of the default route's link, bytes; no packet of ours may be bigger.
        resolver: address of the DNS server for names outside the cluster.
    """

    mtu: int
    resolver: str


def uplink() -> Uplink:
    """Returns the host's uplink.

    Raises:
        ClusterError: where the host has no DNS server that a machine could reach.
    """
    return Uplink(_mtu(), _resolver())


def _mtu() -> int:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "default"]) or "[]")
    if not routes:
        return 1500
    return int(json.loads(run(["ip", "-json", "link", "show", routes[0]["dev"]]))[0]["mtu"])


def _resolver() -> str:
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if path.exists():
            for line in path.read_text().splitlines():
                words = line.split()
                if words[:1] == ["nameserver"] and len(words) > 1 and not words[1].startswith("127."):
                    return words[1]
    raise ClusterError("/etc/resolv.conf names no DNS server except on loopback: add one that pods can reach")


def ensure(layout: Layout, nodes: dict[IPv4Address, IPv4Network]) -> None:
    """Makes bridge, routes to the nodes' pods and masquerading as they should be; idempotent.

    Args:
        layout: of the instance.
        nodes: pod network by node address.
    """
    addresses = layout.addresses
    links = json.loads(run(["ip", "-json", "link", "show", "type", "bridge"]))
    names = {link["ifname"] for link in links if link}
    if layout.bridge not in names:
        # Renamed when it has its mark, so that a bridge of this name without one is never ours.
        unmarked = f"{layout.instance}-new"
        if unmarked in names:
            run(["ip", "link", "delete", unmarked])
        run(["ip", "link", "add", unmarked, "mtu", str(_mtu()), "type", "bridge"])
        run(["ip", "link", "set", unmarked, "alias", f"{MARK}{layout.state}"])
        run(["ip", "link", "set", unmarked, "name", layout.bridge])
    run(["ip", "link", "set", layout.bridge, "up"])
    run(["ip", "address", "replace", f"{addresses.host}/{addresses.machines.prefixlen}", "dev", layout.bridge])
    # Pods of different nodes talk by way of the host, which must not tell the nodes of a shorter way.
    Path(f"/proc/sys/net/ipv4/conf/{layout.bridge}/send_redirects").write_text("0")
    for address, pods in nodes.items():
        run(["ip", "route", "replace", str(pods), "via", str(address), "dev", layout.bridge])
    run(["nft", "-f", "-"], stdin=_rules(layout))


def remove(layout: Layout) -> None:
    """Undoes `ensure` and what is left of `attach`, whatever was done; the bridge must be no other program's."""
    for path in Path("/sys/class/net").glob(f"{layout.instance}-v*"):
        delete_link(path.name)
    for name in (layout.bridge, f"{layout.instance}-new"):
        if Path("/sys/class/net", name).exists():
            run(["ip", "link", "delete", name])
    tables = json.loads(run(["nft", "-json", "list", "tables"]))["nftables"]
    if any(entry.get("table", {}).get("name") == layout.nft_table for entry in tables):
        run(["nft", "delete", "table", "ip", layout.nft_table])


def attach(layout: Layout, spec: MachineSpec, pid: int) -> None:
    """Gives the machine whose PID 1 is `pid` its link `eth0` on the bridge."""
    veth = layout.veth(IPv4Interface(spec.address).ip)
    detach(layout, spec)
    mtu = ("mtu", str(spec.mtu))
    run(
        ["ip", "link", "add", veth, *mtu, "type", "veth", "peer", "name", "eth0", *mtu, "netns", str(pid)],
    )
    run(["ip", "link", "set", veth, "master", layout.bridge, "up"])


def detach(layout: Layout, spec: MachineSpec | None) -> None:
    """Removes the machine's link; the kernel does so too, but some time after the machine's end."""
    if spec is None:
        return
    delete_link(layout.veth(IPv4Interface(spec.address).ip))


def delete_link(name: str) -> None:
    """Deletes a machine's link, unless the kernel is faster."""
    if Path("/sys/class/net", name).exists():
        try:
            run(["ip", "link", "delete", name])
        except ClusterError:
            if Path("/sys/class/net", name).exists():
                raise


def _rules(layout: Layout) -> str:
    network = layout.addresses.network
    return f"""\
add table ip {layout.nft_table}
delete table ip {layout.nft_table}
table ip {layout.nft_table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network} ip daddr != {network} masquerade
    }}
}}
"""
