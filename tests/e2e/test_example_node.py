"""examples/node, applied as it is but for the registry and the patience of yarn."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.images import docker_config
from tests.support.tenant import AMD64, ARM64, Build, Tenant, platform

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "node" / "build.yaml"
PATIENT = {".yarnrc": "network-timeout 600000\n"}
"""yarn gives up on a server after 30 s, which in QEMU on a busy machine may be its own fault."""
ARCHITECTURES = {AMD64: "x64", ARM64: "arm64"}


def test_the_application_of_the_page_is_built_and_runs_on_both_architectures(tenant: Tenant) -> None:
    secure = tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("the cluster has no registry with a password")
    image = f"{secure.host}/{tenant.namespace}/hello-node"
    text = EXAMPLE.read_text(encoding="utf-8")
    replaced = text.replace("registry.example.com/team-a/hello-node", image)
    assert replaced != text
    tenant.secret("registry-credentials", "kubernetes.io/dockerconfigjson", __dockerconfigjson=docker_config(secure))
    manifest = yaml.safe_load(replaced)
    manifest["spec"]["source"]["inline"]["files"] |= PATIENT
    tenant.apply(manifest)
    build = Build(tenant, manifest["metadata"]["name"])
    status = build.succeeded()
    assert tenant.images.digest(f"{image}:latest") == status["image"]["digest"]
    assert [entry["platform"] for entry in status["image"]["platforms"]] == [AMD64, ARM64]
    for entry in status["image"]["platforms"]:
        node = platform(status, entry["platform"])["node"]
        name = f"run-{entry['platform'].replace('/', '-')}"
        container = {"name": "node", "image": f"{image}@{entry['digest']}", "command": ["node", "-e", PROGRAM]}
        spec = {"nodeName": node, "restartPolicy": "OnFailure", "containers": [container]}
        secrets = {"imagePullSecrets": [{"name": "registry-credentials"}]}
        tenant.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**spec, **secrets}})
        succeeded = "--for=jsonpath={.status.phase}=Succeeded"
        tenant.kubectl("wait", f"pod/{name}", succeeded, "--timeout=590s")
        assert json.loads(tenant.kubectl("logs", name)) == [ARCHITECTURES[entry["platform"]], "function"]


PROGRAM = "console.log(JSON.stringify([process.arch, typeof require('/app/node_modules/polka')]))"
"""It has been installed for the architecture, and its dependency is there."""
