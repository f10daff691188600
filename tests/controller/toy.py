"""The real operator with rules that fit on a page: one ConfigMap and one pod for each generation of a build.

Run as a process of its own, so that tests can stop and kill it: `python -m tests.controller.toy <arguments of run>`.
A build whose name contains `poison` makes the rules raise; with the annotation `hostNetwork: true` in
`output.annotations` its pods ask for what Pod Security refuses.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from unittest.mock import patch

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import GROUP, KIND, VERSION, MultiArchBuild
from multiarchbuild.api.status import Mode, Phase, PlatformStatus, Result, RunStatus, Status, Trigger
from multiarchbuild.controller import main
from multiarchbuild.plan.actions import (
    CacheRefs,
    DeleteConfigMap,
    EnsureInputs,
    EventRecord,
    Placement,
    Start,
    StartBuild,
)
from multiarchbuild.plan.children import (
    ATTEMPT_LABEL,
    PLATFORMS_ANNOTATION,
    ROLE_LABEL,
    RUN_LABEL,
    UID_LABEL,
    Node,
)
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.decide import Children, Decision
from multiarchbuild.plan.not_created import ASK_AGAIN, NotCreated, child
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.summary import conditions

AMD64 = Platform("linux", "amd64")


def decide(
    build: MultiArchBuild,
    children: Children,
    nodes: Sequence[Node],
    _policy: Policy,
    now: datetime,
    *,
    others: ClusterView,
    not_created: NotCreated,
    template: object = None,
) -> Decision:
    """Succeed when the pod of this generation has ended."""
    del others, template
    if "poison" in build.metadata.name:
        raise RuntimeError("this build is poison")
    run_id = f"g{build.metadata.generation}"
    name = f"{build.metadata.name}-{run_id}"
    ended = next((pod for pod in children.pods if pod.run_id == run_id and pod.ended), None)
    before = build.status.run if build.status.run and build.status.run.id == run_id else None
    finished = before.finished_at if before and before.finished_at else now
    run = RunStatus(
        id=run_id,
        trigger=Trigger.SPEC_CHANGED,
        inputs=run_id,
        started_at=before.started_at if before else now,
        finished_at=finished if ended else None,
        result=Result.SUCCEEDED if ended else None,
        reason=Reason.SUCCEEDED if ended else Reason.BUILDING,
        message=f"{len(nodes)} nodes",
        platforms=(
            PlatformStatus(
                platform=str(AMD64),
                phase=Phase.SUCCEEDED if ended else Phase.PENDING,
                mode=Mode.NATIVE,
                pod=name,
                attempt=1,
            ),
        ),
    )
    events = [EventRecord(f"{run_id}/started", "Normal", "Started", "A run has started.")]
    if name in not_created:
        refused = child(name, not_created).message
        run = run.model_copy(update={"reason": Reason.POD_REJECTED, "message": refused})
        events = [EventRecord(f"{name}/{Reason.POD_REJECTED}", "Warning", Reason.POD_REJECTED, refused)]
    return Decision(
        before=(
            EnsureInputs(name, run_id),
            StartBuild(name, run_id, 1, name, 60, now, (AMD64,), Placement(Mode.NATIVE, ()), CacheRefs(None, ()), None),
        )
        if not any(pod.run_id == run_id for pod in children.pods)
        else (),
        status=Status(
            observed_generation=build.metadata.generation,
            conditions=conditions(build.status.conditions, run, build.metadata.generation, now),
            run=run,
        ),
        after=tuple(DeleteConfigMap(child.name, child.uid) for child in children.config_maps) if ended else (),
        events=tuple(events),
        wake_after=ASK_AGAIN if name in not_created else None,
    )


def render(action: Start, build: MultiArchBuild, _policy: Policy) -> dict[str, Any]:
    """Return a ConfigMap, or a pod that no node takes."""
    metadata: dict[str, Any] = {
        "name": action.name,
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "name": build.metadata.name,
                "uid": build.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
        "labels": {
            UID_LABEL: build.metadata.uid,
            RUN_LABEL: action.run_id,
            "app.kubernetes.io/managed-by": "multiarchbuild",
        },
    }
    if isinstance(action, EnsureInputs):
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"inputs.json": "{}"}}
    metadata["labels"] |= {ROLE_LABEL: "build", ATTEMPT_LABEL: "1"}
    metadata["annotations"] = {PLATFORMS_ANNOTATION: str(AMD64)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "step", "image": "toy"}],
            "hostNetwork": build.spec.output.annotations.get("hostNetwork") == "true",
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeSelector": {"multiarch.build/toy": "never-scheduled"},
        },
    }


if __name__ == "__main__":
    with (
        patch("multiarchbuild.plan.decide.decide", decide),
        patch("multiarchbuild.pods.render", render, create=True),
    ):
        sys.exit(main(sys.argv[1:]))
