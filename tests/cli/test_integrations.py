"""What the GitHub Action and the GitLab component run, with the rights of the example's ServiceAccount."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from hack.gitlab_component import ACTION, component
from tests.cli.conftest import ROOT, Plugin
from tests.cli.test_cli import folder, user
from tests.support.tenant import AMD64

pytestmark = pytest.mark.e2e
__all__ = ["folder", "user"]


def kubeconfig(user: Plugin) -> str:
    """Return a kubeconfig with a token of the ServiceAccount, as a CI system has it."""
    tenant = user.tenant
    tenant.kubectl("apply", "-f", os.fspath(ROOT / "examples" / "ci" / "service-account.yaml"))
    token = tenant.kubectl("create", "token", "ci-builder", "--duration=1h").strip()
    raw = json.loads(tenant.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
    name = raw["contexts"][0]["name"]
    raw["contexts"][0]["context"] |= {"user": "ci", "namespace": tenant.namespace}
    return yaml.safe_dump({**raw, "current-context": name, "users": [{"name": "ci", "user": {"token": token}}]})


def run(user: Plugin, script: str, env: Mapping[str, str]) -> None:
    own = {name: value for name, value in user.env.items() if name != "KUBECONFIG"}
    done = subprocess.run(
        ["sh", "-c", script],
        env={**own, **env},
        cwd=user.home,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_both_build_and_hand_on_the_digest_with_the_least_rights(user: Plugin, folder: Path) -> None:
    tenant = user.tenant
    secure = tenant.target.facts.secure_registry
    assert secure is not None
    config = kubeconfig(user)
    inputs = {
        "MAB_KUBECONFIG": config,
        "MAB_CONTEXT": str(folder),
        "MAB_PLATFORMS": AMD64,
        "MAB_TAGS": f"{secure.host}/{tenant.namespace}/hello:v1",
        "MAB_TARGET": "base",
        "MAB_BUILD_ARGS": "GREETING=good morning",
        "MAB_REGISTRY_SECRET": "registry",
    }
    (step,) = yaml.safe_load(ACTION.read_text(encoding="utf-8"))["runs"]["steps"]
    output = user.home / "output"
    github = {"GITHUB_ACTION_PATH": os.fspath(ACTION.parent), "GITHUB_OUTPUT": os.fspath(output)}
    run(user, step["run"], {**dict.fromkeys(step["env"], ""), **inputs, **github})
    outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert outputs["digest"] == tenant.images.digest(f"{secure.host}/{tenant.namespace}/hello:v1")
    greeting = tenant.images.file(outputs["image"], "/greeting")
    assert greeting == "good morning\n"
    # The same folder once more: the answer is the image that is there.
    _, jobs = yaml.safe_load_all(component())
    (job,) = jobs.values()
    run(user, job["script"][0], {**inputs, "MAB_DOTENV": "mab.env"})
    assert (user.home / "mab.env").read_text() == f"MAB_IMAGE={outputs['image']}\nMAB_DIGEST={outputs['digest']}\n"
    file = user.home / "ci"
    file.write_text(config, encoding="utf-8")
    for what in ("secrets", "nodes", "configmaps"):
        allowed = subprocess.run(
            ["kubectl", "--kubeconfig", file, "auth", "can-i", "list", what],
            env=user.env,
            capture_output=True,
            check=False,
        )
        assert allowed.stdout.strip() == b"no", what
