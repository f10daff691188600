"""The package as its users install it: a wheel in a clean environment, with the versions of the lock file."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from multiarchbuild import __version__
from tests.cluster.fixture import Cluster

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(argv, env=env, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that has the wheel and what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "python", "-m", "pip")
    run(*pip, "install", "--quiet", "--require-hashes", "--requirement", ROOT / "requirements.lock")
    run(*pip, "install", "--quiet", "--no-deps", wheel)
    assert "No broken requirements" in run(*pip, "check")
    return folder / "bin"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
    assert {name.partition("/")[0] for name in names} == {"multiarchbuild", f"multiarchbuild-{__version__}.dist-info"}
    assert {"multiarchbuild/py.typed", "multiarchbuild/cli/__init__.py"} <= set(names)


def test_kubectl_finds_the_plugin_and_completes_it(installed: Path, cluster: Cluster) -> None:
    kubectl = cluster.program("kubectl")
    path = f"{installed}:{kubectl.parent}:{os.environ['PATH']}"
    assert run(kubectl, "mab", "--version", PATH=path) == f"{__version__}\n"
    assert "exit codes:" in run(kubectl, "mab", "--help", PATH=path)
    assert run(kubectl, "__complete", "mab", "sta", PATH=path).startswith("status\tshow ")


@pytest.mark.parametrize("command", [("run", "--help"), ("step", "--help"), ("cli", "--help"), ("--version",)])
def test_every_part_of_the_program_starts(installed: Path, command: tuple[str, ...]) -> None:
    assert run(installed / "multiarchbuild", *command)
