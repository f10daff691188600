"""The how-to with the CronJob, as a reader would try it."""

import pytest

from tests.support.markdown import ROOT, blocks
from tests.support.tenant import Tenant

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "how-to" / "nightly.md"
IMAGE = "registry.example.com/multiarchbuild:0.1.0"


def test_a_job_requests_a_run_and_the_same_inputs_make_the_same_index(tenant: Tenant, operator: str) -> None:
    (manifests,) = (block.text for block in blocks(PAGE) if (block.language, block.label) == ("yaml", ""))
    assert IMAGE in manifests
    build = tenant.build("hello-node")
    first = build.succeeded()
    manifests = manifests.replace(IMAGE, operator).replace("namespace: team-a", f"namespace: {tenant.namespace}")
    tenant.kubectl("apply", "-f", "-", stdin=manifests)
    tenant.kubectl("create", "job", "tonight", "--from=cronjob/nightly")
    second = build.succeeded(after=first["run"]["id"])
    assert second["run"]["trigger"] == "Requested"
    assert second["image"]["digest"] == first["image"]["digest"]
    tenant.kubectl("wait", "--for=condition=Complete", "job/tonight", "--timeout=300s")
