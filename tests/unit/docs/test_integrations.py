"""The doors for CI systems: what they hand over is what their script takes, and none of it is run as shell code."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.gitlab_component import ACTION, COMPONENT, SCRIPT, component

TEXT = SCRIPT.read_text(encoding="utf-8")
USED = set(re.findall(r"\$\{?(MAB_[A-Z_]+)", TEXT))


def action() -> dict[str, Any]:
    return dict(yaml.safe_load(ACTION.read_text(encoding="utf-8")))


def run(tmp_path: Path, shell: str = "sh", **given: str) -> tuple[list[str], "subprocess.CompletedProcess[str]"]:
    """Run the script with a kubectl-mab that writes down its words; return these, and what came of it."""
    program, words = tmp_path / "kubectl-mab", tmp_path / "words"
    program.write_text(f'#!/bin/sh\nprintf \'%s\\n\' "$@" > {words}\necho "${{ANSWER:-r.test/app@sha256:1}}"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_OUTPUT": str(tmp_path / "out"), **given}
    done = subprocess.run([shell, SCRIPT], env=env, capture_output=True, text=True, check=False)
    return words.read_text().splitlines() if words.exists() else [], done


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_the_script_is_one_of_any_shell(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    tags = "r.test/app:1\n\nr.test/app:two words; touch x\n"
    words, done = run(tmp_path, shell, MAB_TAGS=tags, MAB_NAMESPACE="a", MAB_OPTIONS="--no-cache", MAB_DOTENV="")
    assert done.returncode == 0, done.stderr
    expected = ["build", ".", "--tag", "r.test/app:1", "--tag", "r.test/app:two words; touch x", "--namespace", "a"]
    assert words == [*expected, "--no-cache", "--progress", "plain"]
    assert (tmp_path / "out").read_text() == "image=r.test/app@sha256:1\ndigest=sha256:1\n"


def test_a_manifest_takes_the_place_of_the_folder(tmp_path: Path) -> None:
    words, _ = run(tmp_path, MAB_MANIFEST="build.yaml", MAB_TAGS="r.test/app:1", MAB_PLATFORMS="linux/arm64")
    assert words == ["build", "--file", "build.yaml", "--progress", "plain"]


def test_a_kubeconfig_is_read_by_nobody_else_and_goes_again(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    spy = tmp_path / "python3"
    spy.write_text("#!/bin/sh\n")
    _, done = run(tmp_path, MAB_KUBECONFIG="s3cret", TMPDIR=str(tmp_path / "scratch"))
    assert done.returncode == 0
    assert "s3cret" not in done.stdout + done.stderr
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_no_image_by_digest_is_a_failure(tmp_path: Path) -> None:
    _, done = run(tmp_path, ANSWER="created app")
    assert done.returncode == 1
    assert "has printed no image by digest, but: created app" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_the_plugin_it_says_what_to_name(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", SCRIPT],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "name the wheel of a release in the input plugin" in done.stderr


def test_every_input_of_the_action_reaches_the_script_as_a_variable() -> None:
    (step,) = action()["runs"]["steps"]
    given = {name: f"${{{{ inputs.{name[4:].lower().replace('_', '-')} }}}}" for name in step["env"]}
    assert step["env"] == given
    assert set(step["env"]) == USED - {"MAB_DOTENV"}
    assert {name[4:].lower().replace("_", "-") for name in step["env"]} == set(action()["inputs"])
    assert "${{" not in step["run"], "what a workflow fills in is shell code: hand it over in env"
    assert set(action()["outputs"]) == {"image", "digest"}
    for name, given_input in action()["inputs"].items():
        assert given_input["description"].endswith("."), name


def test_the_component_is_what_make_generate_writes_and_has_the_same_inputs() -> None:
    assert COMPONENT.read_text(encoding="utf-8") == component(), "run make generate"
    header, jobs = yaml.safe_load_all(component())
    (job,) = jobs.values()
    assert set(header["spec"]["inputs"]) == {"stage", "job", "job-image", *action()["inputs"]} - {"kubeconfig"}
    assert set(job["variables"]) == USED - {"MAB_KUBECONFIG"}
    assert job["script"] == [TEXT]
    assert "$[[" not in TEXT
    assert job["artifacts"]["reports"]["dotenv"] == job["variables"]["MAB_DOTENV"]


def test_every_expansion_is_quoted() -> None:
    code = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    for line in code:
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
        assert not re.search(r"\$[A-Za-z{@*]", bare) or line.startswith(("${MAB_", "case $image")), line
    assert "set -eu" in code
    assert "eval" not in TEXT
