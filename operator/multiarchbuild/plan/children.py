"""What a reconcile sees of the pods and ConfigMaps that belong to a build."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from multiarchbuild.api.mounts import BUILT_ANNOTATION, SOURCE_ANNOTATION
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import GROUP

UID_LABEL = f"{GROUP}/build-uid"
"""Label of every child: uid of its MultiArchBuild. (Its name may be longer than a label's value.)"""
RUN_LABEL = f"{GROUP}/run"
"""Label of every child: id of its run."""
ROLE_LABEL = f"{GROUP}/role"
"""Label of every pod: resolve, build, publish or check."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Label of every pod: which try it is, from 1."""
PLATFORMS_ANNOTATION = f"{GROUP}/platforms"
"""Annotation of a build pod: its platforms, separated by commas."""
MODE_ANNOTATION = f"{GROUP}/mode"
"""Annotation of a build pod: Native, Emulated or Cross."""
PLACEMENT_ANNOTATION = f"{GROUP}/placement"
"""Annotation of a build pod: which of the placements of its platform it has; the likeliest has none."""
STEP_CONTAINER = "step"
"""Name of the container in every pod that runs the step; buildkitd is a sidecar beside it."""
BUILDKITD_CONTAINER = "buildkitd"


class Role(StrEnum):
    """What a pod does in its run."""

    RESOLVE = "resolve"
    BUILD = "build"
    PUBLISH = "publish"
    CHECK = "check"
    """A look, between two runs, whether the source has changed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The step container has ended."""

    exit_code: int
    reason: str
    """Of the container runtime: Completed, Error, OOMKilled, ContainerStatusUnknown."""
    message: str
    """Termination message, written by the step."""
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of this build."""

    name: str
    uid: str
    role: Role
    run_id: str
    attempt: int
    platforms: tuple[Platform, ...]
    mode: str
    source_annotation: str
    """Value of the annotation that carries the resolved source; empty when it has none."""
    built_annotation: str
    """Likewise, of what was built."""
    created_at: datetime
    deleting: bool
    phase: str
    node: str | None
    placement: str
    """Which of the placements of its platform it has; its nodeSelector can't be changed, and others may add to it."""
    step_started_at: datetime | None
    """When the step container started, while it runs or after."""
    ended: Ended | None
    waiting_reason: str
    """Why a container waits: ImagePullBackOff, CreateContainerConfigError, … or empty."""
    waiting_message: str
    scheduled_at: datetime | None
    """When the scheduler gave it a node."""
    unschedulable: str
    """Message of the scheduler when the pod fits on no node, else empty."""
    status_reason: str
    """`status.reason` of the pod: Evicted, NodeLost, DeadlineExceeded, … or empty."""
    status_message: str
    disrupted: str
    """Reason of the DisruptionTarget condition, or empty."""
    daemon_oom_killed: bool
    """Whether buildkitd was killed for memory."""
    daemon_restarts: int
    user_namespace: bool = False
    """Whether it asks for a user namespace of its own (`hostUsers: false`)."""
    sandboxed: bool = True
    """Whether its sandbox exists (condition PodReadyToStartContainers, KEP-3085)."""


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap of this build."""

    name: str
    uid: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Node:
    """What placement needs to know of a node."""

    name: str
    ready: bool
    schedulable: bool
    labels: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]
    """(key, value, effect)."""
    user_namespaces: bool | None = None
    """Whether its container runtime makes them for pods; None where the node does not say (before Kubernetes 1.31)."""


def pod_from(manifest: Mapping[str, Any]) -> Pod:
    """Return what a v1 Pod says."""
    meta, status = manifest["metadata"], manifest.get("status", {})
    labels, annotations = meta.get("labels", {}), meta.get("annotations", {})
    statuses = {entry["name"]: entry for entry in status.get("containerStatuses", ())}
    sidecars = {entry["name"]: entry for entry in status.get("initContainerStatuses", ())}
    step = statuses.get(STEP_CONTAINER, {})
    daemon = sidecars.get(BUILDKITD_CONTAINER, {})
    waiting = next(filter(None, map(_waiting, (*sidecars.values(), *statuses.values()))), {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    disruption = conditions.get("DisruptionTarget", {})
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        role=Role(labels[ROLE_LABEL]),
        run_id=labels[RUN_LABEL],
        attempt=int(labels[ATTEMPT_LABEL]),
        platforms=tuple(Platform.parse(text) for text in annotations.get(PLATFORMS_ANNOTATION, "").split(",") if text),
        mode=annotations.get(MODE_ANNOTATION, ""),
        source_annotation=annotations.get(SOURCE_ANNOTATION, ""),
        built_annotation=annotations.get(BUILT_ANNOTATION, ""),
        created_at=_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        phase=status.get("phase", "Pending"),
        node=manifest.get("spec", {}).get("nodeName"),
        placement=annotations.get(PLACEMENT_ANNOTATION, ""),
        step_started_at=_started(step.get("state", {})),
        ended=_ended(step.get("state", {}).get("terminated")),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        scheduled_at=_scheduled_at(scheduled),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        status_reason=status.get("reason", ""),
        status_message=status.get("message", ""),
        disrupted=disruption.get("reason", "") if disruption.get("status") == "True" else "",
        daemon_oom_killed=any(
            state.get("terminated", {}).get("reason") == "OOMKilled"
            for state in (daemon.get("state", {}), daemon.get("lastState", {}))
        ),
        daemon_restarts=daemon.get("restartCount", 0),
        user_namespace=manifest.get("spec", {}).get("hostUsers") is False,
        sandboxed=conditions.get("PodReadyToStartContainers", {}).get("status") != "False",
    )


def config_map_from(manifest: Mapping[str, Any]) -> ConfigMap:
    """Return what a v1 ConfigMap says."""
    meta = manifest["metadata"]
    return ConfigMap(name=meta["name"], uid=meta["uid"], run_id=meta.get("labels", {}).get(RUN_LABEL, ""))


def node_from(manifest: Mapping[str, Any]) -> Node:
    """Return what a v1 Node says."""
    conditions = {entry["type"]: entry["status"] for entry in manifest.get("status", {}).get("conditions", ())}
    spec = manifest.get("spec", {})
    return Node(
        name=manifest["metadata"]["name"],
        ready=conditions.get("Ready") == "True",
        schedulable=not spec.get("unschedulable", False),
        labels=manifest["metadata"].get("labels", {}),
        taints=tuple((taint["key"], taint.get("value", ""), taint["effect"]) for taint in spec.get("taints", ())),
        user_namespaces=user_namespaces(manifest),
    )


def user_namespaces(node: Mapping[str, Any]) -> bool | None:
    """Return what a v1 Node says of its default runtime handler, which is what the kubelet goes by."""
    handlers = node.get("status", {}).get("runtimeHandlers") or ()
    found = (handler.get("features") or {} for handler in handlers if not handler.get("name"))
    return next(found, {}).get("userNamespaces")


def _waiting(container: Mapping[str, Any]) -> Mapping[str, Any]:
    waiting: Mapping[str, Any] = container.get("state", {}).get("waiting", {})
    return waiting if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating") else {}


def _scheduled_at(condition: Mapping[str, Any]) -> datetime | None:
    when = condition.get("lastTransitionTime") if condition.get("status") == "True" else None
    return _time(when) if when else None


def _started(state: Mapping[str, Any]) -> datetime | None:
    started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return _time(started) if started else None


def _ended(terminated: Mapping[str, Any] | None) -> Ended | None:
    if terminated is None:
        return None
    started, finished = terminated.get("startedAt"), terminated.get("finishedAt")
    return Ended(
        exit_code=terminated["exitCode"],
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        started_at=_time(started) if started else None,
        finished_at=_time(finished) if finished else None,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
