"""Names, paths and addresses of one cluster instance. Pure: nothing here touches the machine."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.errors import ClusterError

DEFAULT_INSTANCE = "mab"
DEFAULT_NETWORK = "10.250.0.0/16"
OWN_INSTANCE = os.environ.get("MAB_INSTANCE", DEFAULT_INSTANCE)
OWN_NETWORK = os.environ.get("MAB_NETWORK", DEFAULT_NETWORK)
"""What this checkout uses: two checkouts on one machine need a name and a network each."""
DOMAIN = "cluster.test"
REGISTRY_PORT = 5000
SECURE_PORT = 5443
SECURE_USER = "ci"
API_PORT = 6443
MAX_NODES_PER_ARCH = 32

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".cluster"


class Arch(StrEnum):
    """Architectures a node can have, in the words of `kubernetes.io/arch`."""

    AMD64 = "amd64"
    ARM64 = "arm64"


@dataclass(frozen=True)
class Addresses:
    """How the instance's /16 is divided: machines in the first /24, pods from .64.0/18, Services in .128.0/18."""

    network: IPv4Network

    @property
    def machines(self) -> IPv4Network:
        return IPv4Network((self.network[0], 24))

    @property
    def host(self) -> IPv4Address:
        """The host's end of the bridge, every machine's gateway."""
        return self.network[1]

    @property
    def control(self) -> IPv4Address:
        return self.network[2]

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network((self.network[64 * 256], 18))

    @property
    def services(self) -> IPv4Network:
        return IPv4Network((self.network[128 * 256], 18))

    @property
    def api_service(self) -> IPv4Address:
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        return self.services[10]

    def node(self, index: int) -> IPv4Address:
        return self.network[16 + index]

    def node_pods(self, index: int) -> IPv4Network:
        return IPv4Network((self.pods[256 * index], 24))


@dataclass(frozen=True)
class Node:
    """A node by architecture and ordinal (from 1), which fix its name and addresses for good."""

    arch: Arch
    ordinal: int

    @property
    def name(self) -> str:
        return f"n-{self.arch}" if self.ordinal == 1 else f"n-{self.arch}-{self.ordinal}"

    @property
    def index(self) -> int:
        """Position in the address plan, 0..63."""
        return self.ordinal - 1 + (MAX_NODES_PER_ARCH if self.arch is Arch.ARM64 else 0)


@dataclass(frozen=True)
class Layout:
    """Where one instance lives."""

    instance: str
    state: Path
    addresses: Addresses

    @property
    def domain(self) -> str:
        return DOMAIN if self.instance == DEFAULT_INSTANCE else f"{self.instance}.{DOMAIN}"

    @property
    def registry(self) -> str:
        return f"registry.{self.domain}:{REGISTRY_PORT}"

    @property
    def secure_registry(self) -> str:
        return f"secure.{self.domain}:{SECURE_PORT}"

    @property
    def hosts_line(self) -> str:
        """The line in hosts(5) format by which host and machines find the two registries."""
        names = f"registry.{self.domain} secure.{self.domain}"
        return f"{self.addresses.control} {names} # multiarchbuild cluster {self.instance}"

    @property
    def api_server(self) -> str:
        return f"https://{self.addresses.control}:{API_PORT}"

    @property
    def bridge(self) -> str:
        return f"{self.instance}-br"

    @property
    def nft_table(self) -> str:
        return f"multiarchbuild_{self.instance}"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def facts(self) -> Path:
        return self.state / "cluster.json"

    @property
    def values(self) -> Path:
        return self.state / "values.yaml"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def bin(self) -> Path:
        return self.state / "bin"

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    @property
    def vm(self) -> Path:
        """Of the virtual node, which is no machine as the others are."""
        return self.state / "vm"

    @property
    def desired(self) -> Path:
        return self.state / "desired.json"

    def veth(self, address: IPv4Address) -> str:
        return f"{self.instance}-v{int(address) & 255}"


def layout(*, instance: str = OWN_INSTANCE, network: str = OWN_NETWORK, state: Path | None = None) -> Layout:
    """Checks the parameters of an instance and returns its layout.

    Args:
        instance: 1 to 8 lower-case letters and digits; prefixes links, tables and cgroups on the host.
        network: a private /16 that nothing else on this machine uses.
        state: directory of its state; by default `.cluster/instances/NAME` in the checkout, `.cluster` without a name.

    Raises:
        ClusterError: where a parameter cannot be used.
    """
    if not re.fullmatch("[a-z][a-z0-9]{0,7}", instance):
        raise ClusterError(f"instance name {instance!r} cannot be used: take 1 to 8 lower-case letters or digits")
    try:
        parsed = IPv4Network(network)
    except ValueError as error:
        raise ClusterError(f"network {network!r} cannot be used ({error}): give one like 10.250.0.0/16") from error
    if parsed.prefixlen != 16:
        raise ClusterError(f"network {network} is a /{parsed.prefixlen}: give a /16 like 10.250.0.0/16")
    if state is None:
        state = STATE if instance == DEFAULT_INSTANCE else STATE / "instances" / instance
    return Layout(instance=instance, state=state.resolve(), addresses=Addresses(parsed))


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Returns where programs and images are kept across clusters and checkouts.

    That is `$MAB_CACHE`, else `multiarchbuild` in `$XDG_CACHE_HOME`, else `~/.cache/multiarchbuild`.
    """
    if own := environ.get("MAB_CACHE"):
        return Path(own).resolve()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "multiarchbuild"


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Reads `amd64=2,arm64=0` into nodes; an architecture that is not named has none.

    Raises:
        ClusterError: on an unknown architecture or a count that is no number from 0 to 32.
    """
    nodes: list[Node] = []
    for part in filter(None, text.split(",")):
        name, _, count = part.partition("=")
        if name not in set(Arch) or not count.isdigit() or int(count) > MAX_NODES_PER_ARCH:
            raise ClusterError(
                f"--nodes {text!r}: {part!r} is not ARCH=COUNT with ARCH one of {', '.join(Arch)} "
                f"and COUNT from 0 to {MAX_NODES_PER_ARCH}"
            )
        nodes += [Node(Arch(name), ordinal) for ordinal in range(1, int(count) + 1)]
    return tuple(sorted(set(nodes), key=lambda node: node.index))


def parse_label(text: str) -> tuple[str, str, str]:
    """Reads `NODE:KEY=VALUE` into its three parts.

    Raises:
        ClusterError: where a part is missing.
    """
    match = re.fullmatch(r"([^:]+):([^=]+)=(.*)", text)
    if not match:
        raise ClusterError(f"--label {text!r} is not NODE:KEY=VALUE")
    return match[1], match[2], match[3]
