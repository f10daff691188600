"""`python -m tests.cluster up|down|status|build`."""

import argparse
import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import build, host, lifecycle
from tests.cluster.build import packages
from tests.cluster.errors import ClusterError
from tests.cluster.layout import OWN_INSTANCE, OWN_NETWORK, Layout, cache_directory, parse_label, parse_nodes
from tests.cluster.lifecycle import Wanted
from tests.cluster.status import status

# What the machines run beside what is built: all else comes from the cache.
PACKAGES = (
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "nftables",
    "qemu-user-static",
    "runc",
    "util-linux",
)
# Without its parser containerd does not confine containers, while kubelet finds that the kernel can.
APP_ARMOR_PACKAGE = "apparmor"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done (or healthy), 1 not, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ClusterError, build.BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here, `down` removes what is there", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        print(f"error: no space left for {error.filename or 'a file'}: free some and call again", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the cluster up, repair it, or change it")
    down = commands.add_parser("down", help="take the cluster down and leave nothing behind")
    show = commands.add_parser("status", help="say what runs; exit code 1 where something does not")
    make = commands.add_parser("build", help="only build programs and images into the cache")
    for command in (up, down, show):
        command.add_argument("--instance", default=OWN_INSTANCE, metavar="NAME", help="default: %(default)s")
        command.add_argument("--state", type=Path, metavar="DIR", help="where its state is kept")
    down.add_argument("--all", action="store_true", help="all instances of this checkout")
    up.add_argument("--network", default="", metavar="A.B.0.0/16", help=f"its addresses, default {OWN_NETWORK}")
    up.add_argument("--nodes", metavar="amd64=N,arm64=N", help="default: as it is, at first one of each")
    up.add_argument("--label", action="append", metavar="NODE:KEY=VALUE", help="label of a node; repeatable")
    up.add_argument("--kwok", type=int, metavar="N", help="number of simulated nodes, default: as it is")
    up.add_argument("--preload", default="", metavar="IMAGE,...", help="images to pull on every node")
    for command in (up, make):
        command.add_argument("--with", dest="extra", action="append", default=[], metavar="PROGRAM",
                             help="optional program to build too, such as buildx or kwok")  # fmt: skip
    return parser


def _run(arguments: argparse.Namespace) -> int:
    cache = cache_directory(os.environ)
    if arguments.command == "build":
        build.preflight(cache)
        build.ensure(cache, extra=arguments.extra)
        return 0
    if arguments.command == "up":
        layout = lifecycle.find(instance=arguments.instance, network=arguments.network, state=arguments.state)
        bring_up(layout, wanted_from(arguments, lifecycle.stored(layout)), cache=cache, extra=arguments.extra,
                 preload=tuple(filter(None, arguments.preload.split(","))))  # fmt: skip
        return 0
    layout = lifecycle.find(instance=arguments.instance, state=arguments.state)
    if arguments.command == "down":
        for each in (layout, *(lifecycle.others() if arguments.all else ())):
            lifecycle.down(each)
            print(f"cluster {each.instance} is down")
        return 0
    found = status(layout)
    print(*found.lines, sep="\n")
    return 0 if found.healthy else 1


def wanted_from(arguments: argparse.Namespace, stored: Wanted | None) -> Wanted:
    """Returns what the options ask for; what they leave open stays as it is. Pure."""
    base = stored or Wanted()
    nodes = base.nodes if arguments.nodes is None else parse_nodes(arguments.nodes)
    labels = {name: dict(values) for name, values in base.labels.items()}
    for node, key, value in map(parse_label, arguments.label or ()):
        labels.setdefault(node, {})[key] = value
    names = {node.name for node in nodes}
    if arguments.label and (unknown := sorted(labels.keys() - names)):
        raise ClusterError(f"--label names {', '.join(unknown)}, but the nodes are {', '.join(sorted(names))}")
    kwok = base.kwok if arguments.kwok is None else arguments.kwok
    return Wanted(nodes, {name: values for name, values in labels.items() if name in names}, kwok)


def bring_up(
    layout: Layout,
    wanted: Wanted,
    *,
    cache: Path,
    extra: Sequence[str] = (),
    preload: tuple[str, ...] = (),
) -> None:
    """Builds what is missing, brings the cluster up and says so on standard output.

    Raises:
        ClusterError: where the cluster cannot be brought up.
        BuildError: where a program or an image cannot be made, or the machine lacks something.
    """
    started = time.monotonic()
    build.preflight(cache)
    packages.ensure((*PACKAGES, APP_ARMOR_PACKAGE) if host.has_app_armor() else PACKAGES)
    built = build.ensure(cache, extra=(*extra, *(["kwok"] if wanted.kwok else [])))
    lifecycle.up(layout, wanted, built)
    if preload:
        lifecycle.preload(layout, preload, built)
    names = " ".join(node.name for node in wanted.nodes)
    print(f"cluster {layout.instance} is up after {time.monotonic() - started:.1f} s, nodes: {names}")
    print(f"  export KUBECONFIG={layout.kubeconfig}")
