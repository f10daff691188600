"""First process of a machine: sets up its namespaces from inside, then keeps its services running.

Started by `machine.boot` as PID 1 of new mount, network, PID, UTS and IPC namespaces. When it dies, the kernel
kills every process of the machine and drops its mounts and network, whatever state they were in; that is what
makes powering off simple and complete.

It does nothing until the host has attached the network and says so on standard input; when the host's side
dies before that, it ends.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.files import write_atomic
from tests.cluster.spec import GO, MachineSpec, Service

BACKOFF_FIRST = 0.5
BACKOFF_LIMIT = 10.0
STABLE_AFTER = 30.0
SOCKET_POLL = 0.05


@dataclass
class Supervised:
    """A service and what became of it."""

    service: Service
    pid: int | None = None
    started: float = 0.0
    next_start: float = 0.0
    backoff: float = BACKOFF_FIRST
    starts: int = 0

    def exited(self, now: float) -> None:
        self.pid = None
        if now - self.started > STABLE_AFTER:
            self.backoff = BACKOFF_FIRST
        self.next_start = now + self.backoff
        self.backoff = min(self.backoff * 2, BACKOFF_LIMIT)


def main() -> None:
    directory = Path(sys.argv[1])
    spec = MachineSpec.from_json(json.loads((directory / "spec.json").read_bytes()))
    if os.read(0, len(GO)) != GO:
        sys.exit("the host gave up before the machine's network was attached")
    os.chdir("/")
    prepare(spec)
    supervise(spec, directory)


def prepare(spec: MachineSpec) -> None:
    """Mounts, files, host name and addresses of the machine."""
    socket.sethostname(spec.name)
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name, content in spec.files.items():
        path = Path("/run/machine", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
    for mount in spec.mounts:
        if mount.make_target:
            Path(mount.target).mkdir(parents=True, exist_ok=True)
        kind = ["--bind"] if mount.kind == "bind" else ["-t", mount.kind, "-o", mount.options]
        _run("mount", *kind, mount.source, mount.target)
    # Kubelet wants mounts under / to propagate into the containers' namespaces (Bidirectional volumes).
    _run("mount", "--make-rshared", "/")
    for key, value in spec.sysctls.items():
        Path("/proc/sys", key).write_text(value)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", spec.address, "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", spec.gateway)


def supervise(spec: MachineSpec, directory: Path) -> None:
    """Starts the services, restarts any that ends, and reaps whatever else is left to PID 1; never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    supervised = [Supervised(service) for service in spec.services]
    while True:
        changed = _reap(supervised)
        wait = None
        for entry in supervised:
            if entry.pid is not None:
                continue
            delay = _delay(entry)
            if delay > 0:
                wait = delay if wait is None else min(wait, delay)
            else:
                _start(entry, directory)
                changed = True
        if changed:
            _publish(supervised, directory)
        if wait is None:
            signal.sigwait([signal.SIGCHLD])
        else:
            signal.sigtimedwait([signal.SIGCHLD], wait)


def _delay(entry: Supervised) -> float:
    missing = [path for path in entry.service.needs if not Path(path).exists()]
    return max(SOCKET_POLL if missing else 0.0, entry.next_start - time.monotonic())


def _start(entry: Supervised, directory: Path) -> None:
    service = entry.service
    log = str(directory / f"{service.name}.log")
    entry.pid = os.posix_spawn(
        service.argv[0],
        service.argv,
        {**os.environ, **service.env},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
    )
    entry.started = time.monotonic()
    entry.starts += 1


def _reap(supervised: list[Supervised]) -> bool:
    changed = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return changed
        if pid == 0:
            return changed
        for entry in supervised:
            if entry.pid == pid:
                entry.exited(time.monotonic())
                code = os.waitstatus_to_exitcode(status)
                print(f"{entry.service.name} ended with {code}, again in {entry.backoff / 2:g} s", flush=True)
                changed = True


def _publish(supervised: list[Supervised], directory: Path) -> None:
    state = {entry.service.name: {"pid": entry.pid, "starts": entry.starts} for entry in supervised}
    try:
        write_atomic(directory / "services.json", json.dumps(state).encode())
    except OSError as error:
        # A full disk must not end PID 1 and with it the machine.
        print(f"cannot write the state of the services: {error}", flush=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
