"""Files of the user that are no YAML end in a message."""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from multiarchbuild.cli.build import _FOLDER_ONLY, _from_file
from multiarchbuild.cli.errors import UsageError
from multiarchbuild.cli.kubeconfig import Access
from multiarchbuild.controller.settings import PolicyError, load_policy

BAD = {
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "date": "a: 2026-13-45",
    "number": "a: 1" + "0" * 5000,
    "cut off": "a: [1",
}


@pytest.fixture(params=BAD.values(), ids=list(BAD))
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(request.param)
    return path


def test_a_build(file: Path) -> None:
    named = SimpleNamespace(file=str(file), **dict.fromkeys(_FOLDER_ONLY))
    with pytest.raises(UsageError, match="is not YAML: "):
        _from_file(cast("argparse.Namespace", named))


def test_a_kubeconfig(file: Path) -> None:
    with pytest.raises(UsageError, match="is not a kubeconfig: "):
        Access(kubeconfig=str(file)).read()


def test_a_policy(file: Path) -> None:
    with pytest.raises(PolicyError, match="is not valid YAML: "):
        load_policy(file)
