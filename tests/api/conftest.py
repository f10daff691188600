"""A namespace on a real API server that has the CRD."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.crd import NAME
from tests.api.objects import Object, build
from tests.support.crds import await_established

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kubectl:
    """kubectl in a namespace: its messages are the ones that users see."""

    program: str
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Return what it printed, whatever came of it."""
        command = [self.program, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Return its output; the test fails where it fails."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, name: str) -> Object:
        """Return a MultiArchBuild."""
        found: Object = json.loads(self("get", "mab", name, "-o", "json"))
        return found

    def create(self, name: str, spec: Object) -> Object:
        """Create a MultiArchBuild and return it as it is stored."""
        created: Object = json.loads(self("create", "-f", "-", "-o", "json", stdin=json.dumps(build(name, spec))))
        return created

    def refusals(self, specs: Mapping[str, Object]) -> dict[str, str]:
        """Return what the API server says against each spec, by its name; nothing is created."""
        # A stream of JSON: YAML knows no surrogates, which JSON escapes an emoji with.
        documents = "\n".join(json.dumps(build(name, spec)) for name, spec in specs.items())
        errors = self.run("create", "--dry-run=server", "-f", "-", stdin=documents).stderr
        # One message a line or, where a spec breaks several rules, one headline and a line for each.
        parts = re.split(r'^.*?MultiArchBuild(?:\.[\w.]+)? "([^"]+)" is invalid: ?', errors, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="session")
def kube(api_server: Path) -> Iterator[Kubectl]:
    """Return kubectl in a namespace of this test run."""
    kubectl = Kubectl(str(api_server.parent / "bin" / "kubectl"), api_server, f"api-{uuid.uuid4().hex[:8]}")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    await_established(kubectl, f"crd/{NAME}")
    kubectl("create", "namespace", kubectl.namespace)
    yield kubectl
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Mark every test here: it needs a real API server."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.api)
