"""Compiling with a stand-in for the go command, which a test can have fail or die at will."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.build import images, orchestrate
from tests.cluster.build.errors import BuildError
from tests.cluster.build.programs import ensure_programs

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo go version go9.9.9 linux/amd64; exit; fi
while [ "$1" != -o ]; do shift; done
printf half > "$2"
{then}
"""


def _go(directory: Path, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "go").write_text(FAKE_GO.format(then=then))
    (directory / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def test_a_build_killed_while_compiling_leaves_nothing_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    _go(tmp_path / "bin", "kill -KILL $PPID", monkeypatch)
    program = (
        "import sys, pathlib\n"
        "from tests.cluster.build.programs import ensure_programs\n"
        "ensure_programs(pathlib.Path(sys.argv[1]), ['etcd'])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(cache)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.read_text() for path in cache.glob("staging/*/etcd")] == ["half"]
    assert not list(cache.glob("programs/**/etcd/*/etcd"))

    _go(tmp_path / "bin", 'printf whole > "$2"', monkeypatch)
    assert ensure_programs(cache, ["etcd"])["etcd"].read_text() == "whole"
    assert list(cache.glob("staging/*")) == []


def test_what_is_built_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    _go(tmp_path / "bin", f'echo built >> {tmp_path}/count; printf whole > "$2"', monkeypatch)
    assert ensure_programs(cache, ["etcd", "crane"]) == ensure_programs(cache, ["etcd", "crane"])
    assert (tmp_path / "count").read_text().count("built") == 2


def test_a_module_that_does_not_compile_is_named_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go(tmp_path / "bin", "echo undefined: thing; exit 2", monkeypatch)
    with pytest.raises(BuildError, match=r"Building etcd failed[\s\S]*undefined: thing"):
        ensure_programs(tmp_path / "cache", ["etcd"])


def test_a_failing_compiler_ends_the_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images' side waits for the program that fails; it must not wait for ever."""
    _go(tmp_path / "bin", "exit 2", monkeypatch)

    def wait_for_pause(builder: Any, _progress: Any) -> None:
        builder._workshop._program("pause")

    monkeypatch.setattr(images.ImageBuilder, "build", wait_for_pause)
    with pytest.raises(BuildError, match="Building pause failed"):
        orchestrate.ensure(tmp_path / "cache")


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _go(tmp_path / "bin", 'printf whole > "$2"', monkeypatch)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images.ImageBuilder, "build", full)
    with pytest.raises(BuildError, match=r"is full\. Free some space"):
        orchestrate.ensure(tmp_path / "cache")
