"""What tools make of real builds, from the first status to the last, and that nothing drifts."""

import json
from typing import Any

import pytest
import yaml

from tests.support import judges
from tests.support.tenant import BOTH, RESOURCE, Tenant, condition, inline
from tests.support.watch import LONGEST, watching

pytestmark = pytest.mark.e2e

Object = dict[str, Any]
MANIFEST = """\
# Written as people write it: defaults left out, quantities and durations in their own words.
apiVersion: multiarch.build/v1alpha1
kind: MultiArchBuild
metadata:
  name: good
  labels: {team: a}
spec:
  platforms: [linux/arm64, linux/amd64]
  source:
    inline: {files: {Dockerfile: "FROM busybox:1.36\\nRUN uname -m > /machine\\n"}}
  build:
    args: {B: "2", A: "1"}
  output:
    image: IMAGE
    tags: [latest, "{date}-{time}"]
  scheduling:
    resources: {requests: {cpu: "0.10", memory: 128Mi}, limits: {memory: 1024Mi}}
  timeout: 90m
"""


def _apart(resource: Object) -> Object:
    """Return what a GitOps tool compares: everything but the status and what the API server counts."""
    counted = ("managedFields", "resourceVersion")
    metadata = {key: value for key, value in resource["metadata"].items() if key not in counted}
    return {**resource, "metadata": metadata, "status": None}


def _until_ended(changes: Any, names: set[str]) -> list[Object]:
    """Return every state that the builds `names` have been in, until the runs of all of them have ended."""
    seen: list[Object] = []
    for change in changes:
        seen.append(change.object)
        ended = {each["metadata"]["name"] for each in seen if "result" in each.get("status", {}).get("run", {})}
        if ended == names:
            return seen
    raise AssertionError(f"not all of {names} have ended")


def _judged(objects: list[Object]) -> list[tuple[str, str]]:
    """Return, for each state, what kstatus and Argo CD say, repetitions left out."""
    answers = zip(judges.kstatus(objects), judges.argocd(objects), strict=True)
    said = [(status, answer["health"]["status"]) for status, answer in answers]
    return [each for number, each in enumerate(said) if number == 0 or each != said[number - 1]]


def test_tools_wait_for_the_image_and_see_no_drift(tenant: Tenant) -> None:
    manifest = MANIFEST.replace("IMAGE", tenant.image("good"))
    bad = {
        **yaml.safe_load(manifest),
        "metadata": {"name": "bad"},
        "spec": {
            "platforms": BOTH,
            "source": inline("FROM busybox:1.36\nRUN exit 3\n"),
            "output": {"image": tenant.image("bad")},
        },
    }
    # Nobody reads it while they wait.
    with watching(tenant.target, RESOURCE, "-n", tenant.namespace, seconds=LONGEST) as changes:
        tenant.kubectl("apply", "-f", "-", stdin=manifest)
        applied = json.loads(tenant.kubectl("get", RESOURCE, "good", "-o", "json"))
        tenant.apply(bad)

        tenant.kubectl("wait", f"{RESOURCE}/good", "--for=condition=Ready", "--timeout=300s")
        good = json.loads(tenant.kubectl("get", RESOURCE, "good", "-o", "json"))
        assert tenant.images.digest(f"{tenant.image('good')}:latest") == good["status"]["image"]["digest"]
        tenant.kubectl("wait", f"{RESOURCE}/bad", "--for=condition=Stalled", "--timeout=300s")
        states = _until_ended(changes, {"good", "bad"})

    by_name = {name: [each for each in states if each["metadata"]["name"] == name] for name in ("good", "bad")}
    assert _judged(by_name["good"]) == [("InProgress", "Progressing"), ("Current", "Healthy")]
    assert _judged(by_name["bad"]) == [("InProgress", "Progressing"), ("Failed", "Degraded")]
    assert condition(by_name["bad"][-1]["status"], "Ready")["reason"] == "BuildFailed"

    assert _apart(good) == _apart(applied)
    # kubectl diff ends with 1, an error here, when anything differs.
    assert tenant.kubectl("diff", "-f", "-", stdin=manifest) == ""
    as_flux = ("diff", "--server-side", "--field-manager=flux", "--force-conflicts", "-f", "-")
    assert tenant.kubectl(*as_flux, stdin=manifest) == ""
    assert tenant.kubectl("apply", "-f", "-", stdin=manifest).endswith("unchanged\n")
    assert json.loads(tenant.kubectl("get", RESOURCE, "good", "-o", "json"))["status"] == good["status"]
