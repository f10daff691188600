"""The workflows: they call make, with the least rights, and run no code that somebody else can change."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^ +-? ?uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
"""An action by its commit; the comment says which version that is."""


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def document(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = [line for line in workflow.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.match(line)] == []


def test_rights_are_given_by_job(workflow: Path) -> None:
    whole = document(workflow)
    assert whole["permissions"] == {}, "none but what a job names"
    for name, job in whole["jobs"].items():
        assert job["permissions"], name
        assert job["timeout-minutes"], name
        writes = {key for key, value in job["permissions"].items() if value == "write"}
        assert not writes or "pull_request" not in whole[True], "YAML reads `on` as true"
        checkout = next(step for step in job["steps"] if "checkout" in step.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_the_work_is_done_by_make(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in document(workflow)["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step and "secrets" not in step.get("name", "")]
        assert commands
        for command in commands:
            made = re.fullmatch(r"(?:sudo --preserve-env=PATH )?make ([a-z-]+)(?: .*)?", command)
            assert made, command
            assert made[1] in targets
            assert "${{" not in command, "what a workflow fills in is shell code: hand it over in env"
