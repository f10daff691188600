"""The operator as processes that start within a moment: they are forked from one that has imported everything.

It is the real one, with times that suit thousands of runs: what waits for minutes waits for seconds.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final
from unittest.mock import patch

from multiarchbuild import controller
from multiarchbuild.plan import context

SHORT: Final[Mapping[str, object]] = {
    "multiarchbuild.controller.kube.REQUEST_SECONDS": 5.0,
    "multiarchbuild.controller.stream.SILENCE_SECONDS": 4.0,
    # Less than that: a watch about which there is nothing to say works.
    "multiarchbuild.controller.stream.STABLE_SECONDS": 1.0,
    "multiarchbuild.plan.context._PAUSES": tuple(pause / 5 for pause in context._PAUSES),
}
"""What is other than in the real operator, on an idle machine."""
_IN_SECONDS: Final = [name for name, value in SHORT.items() if isinstance(value, float)]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.faults.rig.operator"])


def at_pace(slowness: float) -> Mapping[str, object]:
    """Return SHORT for a machine that is so many times slower: where all takes longer, no silence is a fault."""
    return {**SHORT, **{name: float(str(SHORT[name])) * slowness for name in _IN_SECONDS}}


class Operator:
    """One operator; started again it is another process with the same log."""

    def __init__(
        self,
        server: str,
        folder: Path,
        *arguments: str,
        namespace: str = "default",
        times: Mapping[str, object] = SHORT,
    ) -> None:
        """Prepare.

        Args:
            server: URL of the API server.
            folder: Where its kubeconfig and its log are.
            arguments: Of `multiarchbuild run`.
            namespace: Where its Lease is.
            times: What is other than in the real operator.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "operator.log"
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(json.dumps(kubeconfig(server, namespace)))
        self._arguments, self._times = arguments, times
        self._process: ForkServerProcess | None = None
        self._restarting = asyncio.Lock()
        self._crash: asyncio.Future[None] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start it."""
        arguments = (str(self._kubeconfig), str(self.log), list(self._arguments), dict(self._times))
        self._process = _forks.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.starts += 1

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Its process, where it runs."""
        return self._process.pid if self._process is not None else None

    async def crash(self) -> None:
        """Be killed, and started again as by a kubelet, even if whoever asks for it is cancelled meanwhile."""
        # The connection whose request has it killed ends with it.
        self._crash = asyncio.ensure_future(self._crashed())
        await asyncio.shield(self._crash)

    async def _crashed(self) -> None:
        async with self._restarting:
            await self.kill()
            self.start()

    async def end(self) -> bool:
        """Kill it for good; return whether it ran until now."""
        async with self._restarting:
            ran = self.runs
            await self.kill()
            return ran

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, and wait for its end."""
        process = self._process
        if process is None or process.pid is None:
            return
        self._process = None
        if process.is_alive():
            os.kill(process.pid, number)
        await asyncio.to_thread(process.join, 120)
        assert process.exitcode is not None, f"still runs after {number.name}: {self.log}"

    def lines(self, level: str) -> list[dict[str, str]]:
        """Return the lines of its log of a level."""
        if not self.log.exists():
            return []
        # The last one may be being written.
        entries = [json.loads(line) for line in self.log.read_text().split("\n")[:-1] if line.startswith("{")]
        return [entry for entry in entries if entry.get("level") == level]


def _run(config: str, log: str, arguments: list[str], times: Mapping[str, object]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["KUBECONFIG"] = config
    threading.Thread(target=_end_with_the_rig, daemon=True).start()
    with ExitStack() as stack:
        for name, value in times.items():
            stack.enter_context(patch(name, value))
        sys.exit(controller.main(["--log-format=json", "--listen=127.0.0.1:0", *arguments]))


def _end_with_the_rig() -> None:
    """Kill this process once the rig has ended, however: nobody else would."""
    rig = multiprocessing.parent_process()
    assert rig is not None
    rig.join()
    os.kill(os.getpid(), signal.SIGKILL)


def kubeconfig(server: str, namespace: str) -> dict[str, object]:
    """Return a kubeconfig for a server that asks for no credentials; `namespace` is where its Lease is."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "rig",
        "clusters": [{"name": "rig", "cluster": {"server": server}}],
        "users": [{"name": "rig", "user": {}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig", "namespace": namespace}}],
    }
