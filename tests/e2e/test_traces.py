"""Traces of runs, as a real receiver of OTLP gets them: the operator's spans, and BuildKit's own below them."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from hack.target import Target
from tests.support import trace_receiver
from tests.support.operator_process import in_place_of_the_installed
from tests.support.poll import until
from tests.support.tenant import AMD64, Tenant, inline
from tests.support.watch import Objects, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

Spans = list[dict[str, Any]]


@pytest.fixture
def receiver(target: Target, operator: str, namespace: str) -> str:
    """A receiver in the cluster; its IP."""
    program = Path(trace_receiver.__file__).read_text(encoding="utf-8")
    objects: list[dict[str, Any]] = [
        {"kind": "ConfigMap", "metadata": {"name": "receiver"}, "data": {"receiver.py": program}},
        {
            "kind": "Pod",
            "metadata": {"name": "receiver"},
            "spec": {
                "containers": [
                    # The operator's image has the messages of OTLP.
                    {"name": "receiver", "image": operator, "command": ["python", "/program/receiver.py"]}
                    | {"volumeMounts": [{"name": "program", "mountPath": "/program"}]}
                ],
                "volumes": [{"name": "program", "configMap": {"name": "receiver"}}],
            },
        },
    ]
    for each in objects:
        target.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", **each}))

    def ready(pods: Objects) -> str:
        found = (pod["status"] for pod in pods.values() if pod["status"].get("phase") == "Running")
        return next((str(status["podIP"]) for status in found), "")

    return wait_for(target, "pods", "-n", namespace, "--field-selector=metadata.name=receiver", until=ready)


def received(target: Target, namespace: str) -> Spans:
    """Return what has come so far."""
    lines = target.kubectl("logs", "-n", namespace, "receiver").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_run_is_one_trace_from_its_start_to_the_steps_of_buildkit(
    target: Target, receiver: str, tenant: Tenant, tmp_path: Path
) -> None:
    with in_place_of_the_installed(target, tmp_path) as process:
        process.change_policy(tracing={"endpoint": f"http://{receiver}:{trace_receiver.PORT}"})
        process.start()
        good = tenant.build(platforms=[AMD64]).succeeded()
        bad = tenant.build("bad", platforms=[AMD64], source=inline("FROM busybox:1.36\nRUN false\n")).failed(
            "BuildFailed"
        )

        wanted = {good["run"]["traceId"], bad["run"]["traceId"]}

        def complete() -> bool:
            return {each["trace"] for each in received(target, tenant.namespace) if each["parent"] == ""} >= wanted

        until("both runs are told", complete)
        spans = received(target, tenant.namespace)
    by_trace: dict[str, Spans] = defaultdict(list)
    for span in spans:
        by_trace[span["trace"]].append(span)

    ours = by_trace[good["run"]["traceId"]]
    named = {span["name"]: span for span in ours if span["service"] == "multiarchbuild"}
    root = named[f"run {tenant.namespace}/app"]
    assert root["parent"] == ""
    assert root["attributes"]["multiarchbuild.image"] == good["image"]["ref"]
    assert root["attributes"]["multiarchbuild.trigger"] == "SpecChanged"
    builder = named[f"build {AMD64}"]
    assert builder["parent"] == named["publish"]["parent"] == root["id"]
    assert {"schedule", "start"} <= named.keys()

    parents = {span["id"]: span["parent"] for span in ours}
    steps = [span for span in ours if span["service"] != "multiarchbuild" and "RUN uname -m" in span["name"]]
    assert steps, sorted({f"{span['service']}: {span['name']}" for span in ours})
    above, each = [], steps[0]["id"]
    while each := parents.get(each, ""):
        above.append(each)
    assert above[-2:] == [builder["id"], root["id"]], "BuildKit's own spans are below the builder's"

    (failed,) = (span for span in by_trace[bad["run"]["traceId"]] if span["name"].startswith("run "))
    assert failed["error"].startswith("BuildFailed: ")
