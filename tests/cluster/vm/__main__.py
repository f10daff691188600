"""`python -m tests.cluster.vm up|down`: the virtual node of the local cluster, which must be up.

`check` says whether it is the cluster that the tests use.
"""

import argparse
import os
import sys

from tests.cluster import build, lifecycle
from tests.cluster.build import packages
from tests.cluster.errors import ClusterError
from tests.cluster.fixture import is_external
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import cache_directory
from tests.cluster.locks import locked
from tests.cluster.vm import guest, image


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.vm", description=__doc__)
    parser.add_argument("command", choices=("check", "up", "down"))
    try:
        _run(parser.parse_args().command)
    except (ClusterError, build.BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: str) -> None:
    layout, cache = lifecycle.find(), cache_directory(os.environ)
    if command != "down" and is_external(os.environ, layout):
        raise ClusterError(
            f"KUBECONFIG={os.environ['KUBECONFIG']} names another cluster than the local one, which alone can have the "
            "virtual node: unset KUBECONFIG"
        )
    if command == "check":
        return
    if not layout.desired.exists():
        raise ClusterError(f"cluster {layout.instance} is not up: `make cluster` brings it up")
    kubectl = Kubectl(layout.bin / "kubectl", layout.kubeconfig)
    with locked(layout.state / "lock", waiting=f"waiting for another command that works on cluster {layout.instance}"):
        if command == "down":
            guest.stop(layout, kubectl)
            if layout.vm.exists():
                print(f"node {guest.GUEST.name} is removed; its logs are in {layout.vm}")
            return
        packages.ensure(guest.HOST_PACKAGES)
        guest.start(layout, build.ensure(cache), image.ensure(cache), cache, kubectl)
    print(f"node {guest.GUEST.name} is Ready; its logs are in {layout.vm}")


if __name__ == "__main__":
    sys.exit(main())
