"""Files that Go modules ship beside their code, such as CRDs: fetched and verified by the go command, never copied."""

import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.cluster.build import gotoolchain
from tests.cluster.build.commands import Commands
from tests.cluster.build.programs import MODULES, module_version
from tests.cluster.layout import cache_directory


@cache
def module_directory(module: str, version: str) -> Path:
    """Return the directory of a module in Go's own cache, downloaded where it is not there."""
    directory = cache_directory(os.environ)
    required = gotoolchain.required_version([file.read_text(encoding="utf-8") for file in MODULES.glob("*/go.mod")])
    go = gotoolchain.ensure(directory, required, Commands(directory / "logs")).command
    with tempfile.TemporaryDirectory() as outside:
        done = subprocess.run(
            [go, "mod", "download", "-json", f"{module}@{version}"],
            cwd=outside,
            env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
    answer = json.loads(done.stdout or "{}")
    assert done.returncode == 0, answer.get("Error") or done.stderr
    return Path(answer["Dir"])


def pinned(program: str, module: str) -> str:
    """Return the version of `module` that the go.mod of a program of the local cluster asks for."""
    return module_version((MODULES / program / "go.mod").read_text(encoding="utf-8"), module)


def crds(module: str, version: str, pattern: str = "config/crd/bases/*.yaml") -> list[Path]:
    """Return the CRDs that a module ships."""
    found = sorted(module_directory(module, version).glob(pattern))
    assert found, f"{module}@{version} has no {pattern}"
    return found
