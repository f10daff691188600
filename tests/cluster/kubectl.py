"""kubectl as the cluster's administrator."""

import json
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.processes import run

POLL = 0.2


@dataclass(frozen=True)
class Kubectl:
    """A kubectl program and whom it speaks to."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 300.0) -> str:
        """Runs it and returns its output; raises ClusterError where it fails."""
        return run([self.program, f"--kubeconfig={self.kubeconfig}", *arguments], stdin=stdin, timeout=timeout)

    def ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        command = [
            str(self.program),
            f"--kubeconfig={self.kubeconfig}",
            "--request-timeout=9s",
            "get",
            "--raw=/readyz",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Returns the Node objects by name."""
        items = json.loads(self("get", "nodes", "-o", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def wait(self, what: str, done: Callable[[], bool], *, timeout: float) -> None:
        """Waits for a condition; raises ClusterError saying `what` did not come true in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: not so after {timeout:g} s")
            time.sleep(POLL)


def is_ready(node: dict[str, Any]) -> bool:
    """Whether a Node object says that the node is Ready."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node["status"].get("conditions", [])
    )


def all_ready(nodes: dict[str, dict[str, Any]], wanted: Collection[str]) -> bool:
    """Whether all wanted nodes exist and are Ready."""
    return all(name in nodes and is_ready(nodes[name]) for name in wanted)
