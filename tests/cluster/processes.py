"""Processes by identity, not by number: a pid alone may long be somebody else's."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError


@dataclass(frozen=True)
class Process:
    """A process of this boot of this machine.

    Attributes:
        pid: in the host's PID namespace.
        start: clock ticks from boot to its start, field 22 of proc_pid_stat(5).
        boot: the kernel's boot id.
    """

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Returns the process that has `pid` now, None if there is none or it is only a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def kill(self, *, timeout: float = 120.0) -> None:
        """Kills it and waits until it is gone; nothing to do where it is.

        Raises:
            ClusterError: where it is still there after `timeout` seconds.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:
                return
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            deadline = time.monotonic() + timeout
            while self.alive:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"process {self.pid} does not end although killed: it hangs in the kernel, see "
                        f"/proc/{self.pid}/stack"
                    )
                time.sleep(0.02)
        finally:
            os.close(descriptor)


def run(command: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 120.0) -> str:
    """Runs a command and returns its standard output.

    Raises:
        ClusterError: where it cannot be started, fails, or takes longer than `timeout` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{' '.join(words)}` did not end within {timeout:g} s") from error
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()
        raise ClusterError(f"`{' '.join(words)}` failed with {done.returncode}: {output[-2000:]}")
    return done.stdout
