"""Each case of `tests/cases`: a public bug report as a small build, with its right outcome.

Environment:
    MAB_TEST_CASES: another folder with cases in the same format.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.target import CommandError
from tests.support import cases
from tests.support.cases import Case
from tests.support.git import GitServer
from tests.support.tenant import Build, Tenant, condition

pytestmark = pytest.mark.e2e

FOLDER = Path(os.environ.get("MAB_TEST_CASES", cases.FOLDER)).resolve()
COMMAND_SECONDS = 120
"""For a line of bash, or a script."""


@dataclass(frozen=True)
class Shell:
    """Bash as a user of the namespace has it."""

    tenant: Tenant
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """With a kubeconfig whose current namespace is the tenant's, and the cluster's programs on PATH."""
        kubeconfig = self.folder / "kubeconfig"
        environment = {**self.tenant.target.environment, "KUBECONFIG": str(kubeconfig)}
        if not kubeconfig.exists():
            shutil.copy(self.tenant.target.facts.kubeconfig, kubeconfig)
            namespace = f"--namespace={self.tenant.namespace}"
            subprocess.run(["kubectl", "config", "set-context", "--current", namespace], env=environment, check=True)
        return environment

    def run(self, *argv: str) -> None:
        """Run a program that must end with 0."""
        done = subprocess.run(
            argv,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{argv[-1]}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"

    def line(self, line: str) -> None:
        """Run a line of bash that must end with 0."""
        self.run("bash", "-o", "pipefail", "-c", line)


@pytest.fixture
def shell(tenant: Tenant, tmp_path: Path) -> Shell:
    return Shell(tenant, tmp_path)


def outcome(tenant: Tenant, case: Case, manifest: str) -> tuple[str, str]:
    """Apply the case; return Ready, Failed or Refused, and the reason of condition Ready or the API server's words."""
    try:
        tenant.kubectl("apply", "-f", "-", stdin=manifest)
    except CommandError as error:
        return "Refused", str(error)
    status = Build(tenant, case.name).until(
        lambda status: condition(status, "Ready").get("status") in {"True", "False"},
        case.seconds,
        f"{case.name} is Ready or has failed",
    )
    ready = condition(status, "Ready")
    return ("Ready" if ready["status"] == "True" else "Failed"), ready["reason"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_case_ends_as_it_says(
    path: Path, tenant: Tenant, shell: Shell, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    case = cases.read(path)
    fill = filled(case, tenant, shell, tmp_path / "repositories", request)
    for line in case.prepare:
        shell.line(fill(line))
    result, reason = outcome(tenant, case, fill(case.manifest))
    assert result == case.result, reason
    assert not case.reasons or reason in case.reasons
    for line in case.checks:
        shell.line(fill(line))


def filled(
    case: Case, tenant: Tenant, shell: Shell, folder: Path, request: pytest.FixtureRequest
) -> Callable[[str], str]:
    """Make what the case's script makes; return what puts the registry and the URL of its repository into a text."""
    registry, url = tenant.target.facts.registry, ""
    if case.script:
        folder.mkdir()
        shell.run("sh", str(case.script), str(folder), registry)
    if case.needs_git:
        server: GitServer = request.getfixturevalue("git_server")
        url = f"{server.upload(folder, tenant.namespace)}/{case.name}.git"
    return lambda text: text.replace("REGISTRY", registry).replace("GITURL", url)
