"""The operator under load: a process of its own, with the rights that the chart gives it, and no proxy before it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.controlplane import AUDITED
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import CHECKOUT, Layout
from tests.cluster.processes import run
from tests.support.ports import free_port

_ACCOUNT: Final = "load-multiarchbuild"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def prepare(layout: Layout, folder: Path) -> Path:
    """Give the operator its rights in the cluster of `layout`; return the kubeconfig of its ServiceAccount."""
    kubectl = Kubectl(layout.bin / "kubectl", layout.kubeconfig)
    chart = CHECKOUT / "charts" / "multiarchbuild"
    rendered = run([layout.bin / "helm", "template", "load", chart, "-n", AUDITED], timeout=60)
    manifests = [
        manifest
        for manifest in yaml.safe_load_all(rendered)
        if manifest and (manifest["kind"] == "ServiceAccount" or "Role" in manifest["kind"])
    ]
    manifests.insert(0, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}})
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    token = kubectl("create", "token", _ACCOUNT, "-n", AUDITED, "--duration=24h").strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-ojson"))
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = AUDITED
    path = folder / "operator.kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@dataclass
class Operator:
    """One operator; started again it is another process."""

    kubeconfig: Path
    folder: Path
    profile: Path | None = None
    """Where a profile goes when the operator is stopped (`profiled.py`), which makes it slower."""
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    async def start(self) -> None:
        """Start it, and return once it works."""
        self.port = free_port()
        module = ["tests.load.profiled", str(self.profile)] if self.profile else ["multiarchbuild"]
        command = [sys.executable, "-m", *module, "run"]
        # Nobody else is there, and who renews a Lease loses it on a machine that stands still for seconds.
        command += ["--no-leader-elect", "--log-format=json", f"--listen=127.0.0.1:{self.port}"]
        environment = os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": f"{CHECKOUT / 'operator'}{os.pathsep}{CHECKOUT}",
            "HOME": str(self.folder),
        }
        self.process = await asyncio.to_thread(self._spawn, command, environment)
        while not await asyncio.to_thread(self._works):
            self.check()
            await asyncio.sleep(0.05)

    def _spawn(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self.folder / "operator.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)

    def check(self) -> None:
        """Raise an error if it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"the operator has ended: {self.folder / 'operator.log'}"

    async def stop(self) -> None:
        """Have it end in order."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)

    def _works(self) -> bool:
        return "[+] watches synced" in self._get("/readyz")

    def _get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            return str(error.read().decode())
        except OSError:
            return ""

    def metric(self, series: str) -> float:
        """Return the value of a series of its metrics."""
        lines = self._get("/metrics").splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " ")), 0.0)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        assert self.process is not None
        return cpu_seconds(self.process.pid)

    def memory(self, name: str = "VmRSS") -> float:
        """Return its resident memory (`VmHWM`: the most so far), in MiB."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(f"{name}:"))

    def lines(self, level: str) -> list[dict[str, Any]]:
        """Return the lines of its log of a level."""
        text = (self.folder / "operator.log").read_text(encoding="utf-8")
        entries = [json.loads(line) for line in text.split("\n")[:-1] if line.startswith("{")]
        return [entry for entry in entries if entry.get("level") == level]


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has used, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
