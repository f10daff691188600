"""The operator of this working tree as a process on this machine: one that can be killed at a chosen moment."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hack.install import NAMESPACE, RELEASE
from hack.target import Target

from .ports import free_port
from .watch import gone

ROOT = Path(__file__).parents[2]
_LABEL = f"app.kubernetes.io/instance={RELEASE}"


@dataclass
class OperatorProcess:
    """An operator with the policy of the installed one."""

    target: Target
    policy: Path
    log: Path
    module: str = "multiarchbuild"
    _port: int = field(default=0, init=False)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it; nobody else runs, so that it need not wait for a Lease."""
        self._port = free_port()
        command = [sys.executable, "-m", self.module, "run", f"--policy={self.policy}", "--no-leader-elect"]
        command += [f"--listen=127.0.0.1:{self._port}", "--log-format=console"]
        environment = {**self.target.environment, "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)

    def change_policy(self, **values: Any) -> None:
        """Change fields of the policy, which counts from the next start."""
        policy = yaml.safe_load(self.policy.read_text(encoding="utf-8"))
        self.policy.write_text(yaml.safe_dump({**policy, **values}), encoding="utf-8")

    def told(self) -> dict[str, bytes]:
        """Return its log and its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as metrics:
            return {"operator": self.log.read_bytes(), "metrics": metrics.read()}

    def wait(self, seconds: float) -> int:
        """Return the exit code once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """Kill it: it gets no say in the matter."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextmanager
def in_place_of_the_installed(
    target: Target, folder: Path, module: str = "multiarchbuild"
) -> Iterator[OperatorProcess]:
    """Yield an operator, not started yet, while the installed one is away."""
    policy = folder / "policy.yaml"
    policy.write_text(
        target.kubectl(
            "get", "configmap", f"{RELEASE}-policy", "-n", NAMESPACE, "-o", r"jsonpath={.data.policy\.yaml}"
        ),
        encoding="utf-8",
    )
    operator = OperatorProcess(target, policy, folder / "operator.log", module)
    deployment = ("deployment", RELEASE, "-n", NAMESPACE)
    target.kubectl("scale", *deployment, "--replicas=0")
    try:
        gone(target, "pods", "-n", NAMESPACE, "-l", _LABEL)
        yield operator
    finally:
        operator.kill()
        target.kubectl("scale", *deployment, "--replicas=1")
        target.kubectl("rollout", "status", *deployment, "--timeout=300s")
        print(operator.log.read_text(encoding="utf-8") if operator.log.exists() else "the operator was never started")
