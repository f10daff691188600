"""The host's side of a machine: boot it, find it, enter it, power it off."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import cgroups, network
from tests.cluster.errors import ClusterError
from tests.cluster.files import write_atomic
from tests.cluster.layout import CHECKOUT, Layout
from tests.cluster.processes import Process
from tests.cluster.spec import GO, MachineSpec

BOOT_TIMEOUT = 120.0


@dataclass(frozen=True)
class Machine:
    """A machine of an instance, running or not."""

    layout: Layout
    name: str

    @property
    def directory(self) -> Path:
        """Its state: spec, logs, and the directories that outlive it."""
        return self.layout.machines / self.name

    def process(self) -> Process | None:
        """Returns its PID 1 as seen from the host, None where it is not running."""
        try:
            process = Process(**json.loads((self.directory / "booted.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return process if process.alive else None

    def booted_spec(self) -> MachineSpec | None:
        """Returns what it was last booted from, None where that is not known."""
        try:
            return MachineSpec.from_json(json.loads((self.directory / "spec.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def services(self) -> dict[str, dict[str, int | None]]:
        """Returns pid (in the machine's namespace) and number of starts of each of its services."""
        try:
            services: dict[str, dict[str, int | None]] = json.loads((self.directory / "services.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return services

    def path(self, inside: str) -> Path:
        """Returns the host's path of a file in the running machine, sockets too."""
        process = self.process()
        if process is None:
            raise ClusterError(f"machine {self.name} is not running: `make cluster` starts it")
        return Path(f"/proc/{process.pid}/root{inside}")

    def enter(self) -> tuple[str, ...]:
        """Returns the command prefix that runs a command inside the machine."""
        process = self.process()
        if process is None:
            raise ClusterError(f"machine {self.name} is not running: `make cluster` starts it")
        return ("nsenter", "--target", str(process.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--")

    def boot(self, spec: MachineSpec) -> None:
        """Starts it from `spec`; it must not be running.

        Raises:
            ClusterError: where it does not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for directory in spec.directories:
            (self.directory / directory).mkdir(parents=True, exist_ok=True)
        (self.directory / "services.json").unlink(missing_ok=True)
        write_atomic(self.directory / "spec.json", json.dumps(spec.to_json()).encode(), mode=0o600)
        groups = cgroups.create(self.layout.instance, self.name)
        with (self.directory / "machine.log").open("ab") as log:
            outer = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--propagation", "private"),
                    *("--fork", "--kill-child", "--mount-proc", "--"),
                    *(sys.executable, "-m", "tests.cluster.init", str(self.directory)),
                ],
                cwd=CHECKOUT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            process = self._first_process(outer)
            for group in groups:
                for pid in (outer.pid, process.pid):
                    (group / "cgroup.procs").write_text(str(pid))
            write_atomic(self.directory / "booted.json", json.dumps(asdict(process)).encode())
            network.attach(self.layout, spec, process.pid)
            assert outer.stdin is not None
            outer.stdin.write(GO)
            outer.stdin.close()
        except BaseException:
            outer.kill()
            outer.wait()
            raise

    def _first_process(self, outer: subprocess.Popen[bytes]) -> Process:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        deadline = time.monotonic() + BOOT_TIMEOUT
        while outer.poll() is None and time.monotonic() < deadline:
            for pid in children.read_text().split():
                # Before it has executed init, the child is still unshare preparing the namespaces.
                if b"tests.cluster.init" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:4] and (
                    process := Process.of(int(pid))
                ):
                    return process
            time.sleep(0.01)
        raise ClusterError(f"machine {self.name} did not start: see {self.directory / 'machine.log'}")

    def power_off(self) -> None:
        """Ends it as a power cut would; its disks stay. Nothing to do where it is not running."""
        process = self.process()
        if process is not None:
            process.kill()
        # Where its state was removed by hand or a start was cut off, its processes are known by their cgroup.
        for pid in cgroups.processes(self.layout.instance, self.name):
            if stray := Process.of(pid):
                stray.kill()
        network.detach(self.layout, self.booted_spec())
        cgroups.remove(self.layout.instance, self.name)
        (self.directory / "booted.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Powers it off and removes its disks and logs."""
        self.power_off()
        shutil.rmtree(self.directory)


def environment() -> dict[str, str]:
    """Returns the environment of a machine's programs: nothing of the caller's but proxies and locale."""
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or key == "LANG"}
    return {**kept, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
