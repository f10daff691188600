"""A cluster to work with, as programs see it: kubectl, helm, crane and buildctl with the right environment."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster import facts, fixture, lifecycle
from tests.cluster.facts import Facts


class CommandError(Exception):
    """A program failed; the message holds what it said."""


@dataclass(frozen=True)
class Target:
    """One cluster and its programs."""

    facts: Facts

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> str:
        """Return what a program printed.

        Raises:
            CommandError: It ended with another exit code than 0, or took longer than `timeout` seconds.
        """
        command = " ".join(argv[:4])
        try:
            done = subprocess.run(
                argv, input=stdin, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{command} … took longer than {timeout:.0f} s") from error
        if done.returncode:
            raise CommandError(f"{command} … failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Return what kubectl printed."""
        return self.run("kubectl", *args, stdin=stdin)

    def crane(self, *args: str) -> str:
        """Return what crane printed."""
        insecure = ["--insecure"] if self.facts.registry_insecure else []
        return self.run("crane", args[0], *insecure, *args[1:])

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the programs."""
        path = f"{self.facts.bin}:{os.environ['PATH']}" if self.facts.bin else os.environ["PATH"]
        return {**os.environ, "KUBECONFIG": self.facts.kubeconfig, "PATH": path}

    @property
    def registries(self) -> list[dict[str, Any]]:
        """How builds reach this cluster's registries, as `registries` of the operator's policy."""
        registries: dict[str, dict[str, Any]] = tomllib.loads(self.facts.buildkitd_toml).get("registry", {})
        return [
            {"host": host, "plainHttp": entry.get("http", False), "mirrors": entry.get("mirrors", [])}
            for host, entry in registries.items()
        ]


def from_environment() -> Target:
    """Return the cluster that KUBECONFIG names (see tests/cluster/fixture.py), or the local one.

    Raises:
        CommandError: There is none.
    """
    layout = lifecycle.find()
    if os.environ.get("KUBECONFIG", str(layout.kubeconfig)) != str(layout.kubeconfig):
        return Target(fixture.external(os.environ).facts)
    try:
        return Target(facts.read(layout.facts))
    except FileNotFoundError as error:
        raise CommandError("there is no local cluster: run make cluster, or name another with KUBECONFIG") from error


def finish(work: Callable[[Target], None]) -> int:
    """Do `work` with the cluster that the environment names; return the exit code, and say why where it is not 0."""
    try:
        work(from_environment())
    except CommandError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
