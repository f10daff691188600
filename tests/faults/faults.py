"""Ways to break a local cluster, each undone by the one who breaks it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.fixture import Cluster

_TABLE = "mab-test-fault"


@contextmanager
def registry_refuses(cluster: Cluster, port: int) -> Iterator[None]:
    """Refuse every connection to the registry, those that are open too, as if it had been stopped."""
    rule = f"tcp dport {port} reject with tcp reset"
    chain = f"chain input {{\ntype filter hook input priority -10;\n{rule}\n}}\n"
    _in_machine(cluster, "control", f"table inet {_TABLE} {{\n{chain}}}\n")
    try:
        yield
    finally:
        _in_machine(cluster, "control", f"delete table inet {_TABLE}\n")


def _in_machine(cluster: Cluster, machine: str, rules: str) -> None:
    """Add rules to the firewall of a machine."""
    booted = json.loads((cluster.local.machines / machine / "booted.json").read_text())
    command = ["nsenter", f"--target={booted['pid']}", "--net", "--", "nft", "-f", "-"]
    subprocess.run(command, input=rules.encode(), check=True)


def kill_buildkitd(cluster: Cluster, pod: dict[str, Any]) -> None:
    """Kill the BuildKit of a build pod."""
    meta = pod["metadata"]
    where = ("-n", meta["namespace"], meta["name"], "-c", "buildkitd")
    cluster.kubectl("exec", *where, "--", "sh", "-c", "kill -9 $(pidof buildkitd)")
