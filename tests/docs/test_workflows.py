"""The workflows, and the one that the documentation shows, as actionlint judges them."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.build import ensure_programs
from tests.cluster.layout import cache_directory
from tests.support.markdown import ROOT, blocks

pytestmark = pytest.mark.xdist_group("docs")

SHOWN = ROOT / "docs" / "how-to" / "ci.md"


def lint(text: str) -> str:
    """Return what actionlint finds in a workflow."""
    program = ensure_programs(cache_directory(os.environ), (), extra=("actionlint",))["actionlint"]
    done = subprocess.run([program, "-no-color", "-"], input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.name)
def test_a_workflow_has_no_mistakes(file: Path) -> None:
    assert lint(file.read_text(encoding="utf-8")) == ""


def test_neither_has_the_one_that_users_are_shown() -> None:
    (jobs,) = (block.text for block in blocks(SHOWN) if block.text.startswith("jobs:"))
    assert lint(f"on: push\n{jobs}") == ""
    assert 'property "nab" is not defined' in lint(f"on: push\n{jobs}".replace("steps.mab", "steps.nab")), "it judges"
