"""`kubectl mab` as its users call it: a plugin on PATH, found by kubectl."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.tenant import Tenant

ROOT = Path(__file__).parents[2]
SECONDS = 600
"""After which a command is taken to hang, builds included."""


@dataclass(frozen=True)
class Plugin:
    """`kubectl mab` in a tenant's namespace."""

    tenant: Tenant
    home: Path
    """Of the user: ~/.docker and programs."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the user."""
        own = self.tenant.target.environment
        path = f"{self.home}/bin:{own['PATH']}"
        return {**own, "PATH": path, "HOME": str(self.home), "PYTHONUNBUFFERED": "1", **self.environment}

    def argv(self, *words: str) -> list[str]:
        """Return the command line of a command in the namespace."""
        return ["kubectl", "mab", *words, "-n", self.tenant.namespace]

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            self.argv(*words), env=self.env, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def out(self, *words: str, stdin: str = "") -> str:
        """Return what a command prints that must succeed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command, which hears Ctrl-C even where these tests, in a shell's background, do not."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.argv(*words),
            env=self.env,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - there are no threads
        )

    def program(self, name: str, text: str) -> None:
        """Put a program on the user's PATH."""
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)


@pytest.fixture
def plugin(tenant: Tenant, tmp_path: Path) -> Plugin:
    """The plugin, installed for a user of their own."""
    made = Plugin(tenant, tmp_path)
    for name, function in (("kubectl-mab", "main"), ("kubectl_complete-mab", "complete_main")):
        made.program(name, _entry(function))
    return made


def _entry(function: str) -> str:
    lines: Sequence[str] = (
        f"#!{sys.executable}",
        "import sys",
        f"sys.path.insert(0, {os.fspath(ROOT / 'operator')!r})",
        f"from multiarchbuild.cli import {function}",
        f"sys.exit({function}())",
    )
    return "\n".join(lines) + "\n"
