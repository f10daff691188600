"""What a reconcile sees of the pods and ConfigMaps that belong to a build."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from multiarchbuild.api.answers import NONCE_ENV
from multiarchbuild.api.mounts import (
    BUILT_ANNOTATION,
    BUILT_AT_ANNOTATION,
    IDLE_ANNOTATION,
    REQUEST_ANNOTATION,
    REQUESTS_ANNOTATION,
    SOURCE_ANNOTATION,
)
from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.api.requests import RequestHead
from multiarchbuild.api.resource import GROUP
from multiarchbuild.api.status import CacheVolumeUse, Mode

UID_LABEL = f"{GROUP}/build-uid"
"""Label of every child: uid of its MultiArchBuild. (Its name may be longer than a label's value.)"""
RUN_LABEL = f"{GROUP}/run"
"""Label of every child: id of its run."""
ROLE_LABEL = f"{GROUP}/role"
"""Label of every pod: resolve, build, publish or check."""
RECORD_ROLE = "record"
"""Value of that label of a ConfigMap with what a builder has recorded."""
RECORD_KEY = "record"
"""Key of that ConfigMap: the record, compressed and in base64."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Label of every pod: which try it is, from 1."""
PLATFORMS_ANNOTATION = f"{GROUP}/platforms"
"""Annotation of a build pod: its platforms, separated by commas."""
MODE_ANNOTATION = f"{GROUP}/mode"
"""Annotation of a build pod: Native, Emulated or Cross."""
PLACEMENT_ANNOTATION = f"{GROUP}/placement"
"""Annotation of a build pod: which of the placements of its platform it has; the likeliest has none."""
CACHE_ROLE = "cache"
"""Value of the label of a claim for what builders keep (cache.volume)."""
VOLUME_LABEL = f"{GROUP}/volume"
"""Label of such a claim: hash of what the build and the policy ask of it."""
VOLUME_ANNOTATION = f"{GROUP}/cache-volume"
"""Annotation of a build pod: whether it has such a claim, or why not (`CacheVolumeUse`)."""
STATE_VOLUME = "buildkitd-state"
"""Name of the volume that buildkitd keeps its state on."""
IMAGE_ANNOTATION = f"{GROUP}/image"
"""Annotation of a publish pod: repository that it pushes to. The build may be edited meanwhile."""
TEMPLATE_ANNOTATION = f"{GROUP}/template"
"""Annotation of a builder that stays after its run: hash of what two runs must have in common to share it."""
DESTINATIONS_ANNOTATION = f"{GROUP}/destinations"
"""Annotation of a publish pod: the further repositories that it copies the image to, separated by commas."""
TAGS_ANNOTATION = f"{GROUP}/tags"
"""Annotation of a publish pod: tags that it moves there, separated by commas."""
KUEUE = "kueue.x-k8s.io/"
"""Prefix of labels and annotations of pods that Kueue admits."""
STEP_CONTAINER = "step"
"""Name of the container in every pod that runs the step; buildkitd is a sidecar beside it."""
BUILDKITD_CONTAINER = "buildkitd"
INPUTS_VOLUME = "inputs"
"""Name of the volume with the run's ConfigMap."""


Requests = tuple[tuple[str, str, str], ...]
"""Container, CPU and memory that it requests, as the API server writes them; empty where it requests none."""


class Role(StrEnum):
    """What a pod does in its run."""

    RESOLVE = "resolve"
    BUILD = "build"
    PUBLISH = "publish"
    CHECK = "check"
    """A look, between two runs, whether the source has changed."""
    CHECK_BASES = "check-bases"
    """Likewise, whether base images have moved."""
    UNKNOWN = "unknown"
    """Something that another version of the operator made, and that this one knows nothing of."""


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
    """By the clock of the node, which may be wrong: to be shown, and nothing is decided by it."""
    reported_at: datetime | None = None
    """When the API server was told, by its own clock, or later, when it was told something else of the pod."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of this build."""

    name: str
    uid: str
    role: Role
    run_id: str
    attempt: int
    platforms: tuple[Platform, ...]
    mode: Mode
    """How it builds, where it is a builder."""
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
    """When the step container started, while it runs or after, by the clock of the node."""
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
    """Why it was taken away: reason of the DisruptionTarget condition, or what Kueue says; or empty."""
    daemon_oom_killed: bool
    """Whether buildkitd was killed for memory."""
    daemon_restarts: int
    user_namespace: bool = False
    """Whether it asks for a user namespace of its own (`hostUsers: false`)."""
    gates: tuple[str, ...] = ()
    """Scheduling gates (KEP-3521): until whoever set them has removed them, as Kueue does, it gets no node."""
    sandboxed: bool = True
    """Whether its sandbox exists (condition PodReadyToStartContainers, KEP-3085)."""
    acknowledged: bool = True
    """Whether the kubelet of its node has said anything of it."""
    image: str = ""
    """Repository that a publish pod pushes to, and the tags that it moves there."""
    tags: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    """Further repositories that it copies the image to."""
    built_at: datetime | None = None
    """When a publish pod was handed what was built, by the operator's clock; None where it was made with it."""
    nonce: str = ""
    """What tells an answer in the step's log from everything else there; empty when the step gives none."""
    answer: str = ""
    """What the step has answered in its log: its termination message, before the end of its container is seen."""
    template: str = ""
    """Of a builder that stays after its run: hash of all that two runs must have in common to share it."""
    handed: RequestHead | None = None
    """The last request that was handed to it, once it has been kept: `run_id` and `attempt` are of that."""
    idle_after: str = ""
    """Name of the request whose result is known, while no other is handed over."""
    taken: bool = False
    """Whether it is known to have begun with what was handed to it."""
    exporting: bool = False
    """Whether a builder is known to push its image: of the Dockerfile nothing is left to do."""
    record: str = ""
    """What a builder that failed has printed of its build, compressed and in base64, before it has ended."""
    inputs: str = ""
    """Name of the ConfigMap that it mounts."""
    namespace: str = ""
    requests: Requests = ()
    """What the step and buildkitd request. The others of the pod are not the operator's."""
    full_requests: str = ""
    """What they request while they build, of a builder that has been kept: the annotation (`plan.resize`)."""
    guaranteed: bool = False
    """Whether its QoS class is Guaranteed: its requests are its limits."""
    queued: bool = False
    """Whether Kueue counts it until it ends, also where a webhook has put it in a queue."""
    claim: str = ""
    """Name of the claim that its buildkitd keeps its state on; empty where the state goes with the pod."""
    volume: CacheVolumeUse | None = None
    """Whether it has one, or why not; None where none is asked for."""
    deleted_at: datetime | None = None
    """When it is to be gone, where it is being deleted and has a claim, which another pod may wait for."""

    @property
    def request(self) -> str:
        """Name of what it was asked for last."""
        return self.handed.name if self.handed else self.name

    @property
    def idle(self) -> bool:
        """Whether it is a kept builder that waits for a request."""
        return bool(self.template) and self.idle_after == self.request

    @property
    def concluded(self) -> bool:
        """Whether the step is known to have ended, or to be about to."""
        return self.ended is not None or bool(self.answer) or self.idle or self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap of this build."""

    name: str
    uid: str
    run_id: str
    is_record: bool = False
    """Whether it keeps what a builder has recorded, and is no run's inputs."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim of this build."""

    name: str
    uid: str
    platforms: tuple[Platform, ...]
    placement: str
    """Which of the placements of its platforms it is for; the likeliest has none."""
    asked: str
    """Hash of what the build and the policy asked of it."""
    bound: bool = False
    """Whether it has a volume."""
    lost: bool = False
    """Whether it had one that is gone (phase Lost)."""
    deleting: bool = False
    """Whether it goes, as soon as no pod has it."""


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
    disk_pressure: bool = False
    """Whether it is short of disk."""


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
    started = _started(step.get("state", {}))
    handed = _handed(annotations.get(REQUEST_ANNOTATION, ""))
    claim = _claim(manifest.get("spec", {}))
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        role=_role(labels.get(ROLE_LABEL, "")),
        run_id=labels.get(RUN_LABEL, ""),
        attempt=_attempt(labels.get(ATTEMPT_LABEL, "")),
        platforms=tuple(platform_of(text) for text in annotations.get(PLATFORMS_ANNOTATION, "").split(",") if text),
        mode=_mode(annotations.get(MODE_ANNOTATION, "")),
        source_annotation=annotations.get(SOURCE_ANNOTATION, ""),
        built_annotation=annotations.get(BUILT_ANNOTATION, ""),
        created_at=_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        phase=status.get("phase", "Pending"),
        node=manifest.get("spec", {}).get("nodeName"),
        placement=annotations.get(PLACEMENT_ANNOTATION, ""),
        # Of a kept builder: when it was asked for what it does now.
        step_started_at=handed.at if handed and started else started,
        ended=_ended(step.get("state", {}).get("terminated"), _reported_at(meta)),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        scheduled_at=_scheduled_at(scheduled),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        status_reason=status.get("reason", ""),
        status_message=status.get("message", ""),
        disrupted=_disrupted(conditions),
        daemon_oom_killed=any(
            state.get("terminated", {}).get("reason") == "OOMKilled"
            for state in (daemon.get("state", {}), daemon.get("lastState", {}))
        ),
        daemon_restarts=daemon.get("restartCount", 0),
        user_namespace=manifest.get("spec", {}).get("hostUsers") is False,
        gates=tuple(gate["name"] for gate in manifest.get("spec", {}).get("schedulingGates") or ()),
        sandboxed=conditions.get("PodReadyToStartContainers", {}).get("status") != "False",
        acknowledged="startTime" in status or bool(statuses),
        image=annotations.get(IMAGE_ANNOTATION, ""),
        tags=tuple(filter(None, annotations.get(TAGS_ANNOTATION, "").split(","))),
        destinations=tuple(filter(None, annotations.get(DESTINATIONS_ANNOTATION, "").split(","))),
        built_at=_moment(annotations.get(BUILT_AT_ANNOTATION, "")),
        nonce=_nonce(manifest.get("spec", {})),
        template=annotations.get(TEMPLATE_ANNOTATION, ""),
        handed=handed,
        idle_after=annotations.get(IDLE_ANNOTATION, ""),
        inputs=_inputs(manifest.get("spec", {})),
        namespace=meta.get("namespace", ""),
        requests=_requests(manifest.get("spec", {})),
        full_requests=annotations.get(REQUESTS_ANNOTATION, ""),
        guaranteed=status.get("qosClass") == "Guaranteed",
        queued=any(key.startswith(KUEUE) for key in (*labels, *annotations)),
        claim=claim,
        volume=_volume(annotations.get(VOLUME_ANNOTATION, "")),
        deleted_at=_moment(meta.get("deletionTimestamp", "")) if claim else None,
    )


def is_child(manifest: Mapping[str, Any], uid: str) -> bool:
    """Return whether an object is a child of the build with this uid, and does not just have its label or its name."""
    meta = manifest["metadata"]
    references = meta.get("ownerReferences") or ()
    controlled = any(reference["uid"] == uid and reference.get("controller") for reference in references)
    return controlled and (meta.get("labels") or {}).get(UID_LABEL) == uid


def config_map_from(manifest: Mapping[str, Any]) -> ConfigMap:
    """Return what a v1 ConfigMap says."""
    meta = manifest["metadata"]
    labels = meta.get("labels", {})
    is_record = labels.get(ROLE_LABEL) == RECORD_ROLE
    return ConfigMap(name=meta["name"], uid=meta["uid"], run_id=labels.get(RUN_LABEL, ""), is_record=is_record)


def claim_from(manifest: Mapping[str, Any]) -> Claim:
    """Return what a v1 PersistentVolumeClaim says."""
    meta, phase = manifest["metadata"], manifest.get("status", {}).get("phase", "Pending")
    annotations = meta.get("annotations", {})
    return Claim(
        name=meta["name"],
        uid=meta["uid"],
        platforms=tuple(platform_of(text) for text in annotations.get(PLATFORMS_ANNOTATION, "").split(",") if text),
        placement=annotations.get(PLACEMENT_ANNOTATION, ""),
        asked=meta.get("labels", {}).get(VOLUME_LABEL, ""),
        bound=phase == "Bound",
        lost=phase == "Lost",
        deleting="deletionTimestamp" in meta,
    )


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
        disk_pressure=conditions.get("DiskPressure") == "True",
    )


def user_namespaces(node: Mapping[str, Any]) -> bool | None:
    """Return what a v1 Node says of its default runtime handler, which is what the kubelet goes by."""
    handlers = node.get("status", {}).get("runtimeHandlers") or ()
    found = (handler.get("features") or {} for handler in handlers if not handler.get("name"))
    return next(found, {}).get("userNamespaces")


def _nonce(spec: Mapping[str, Any]) -> str:
    steps = (entry for entry in spec.get("containers", ()) if entry["name"] == STEP_CONTAINER)
    found = (entry for step in steps for entry in step.get("env") or () if entry["name"] == NONCE_ENV)
    return next((str(entry.get("value", "")) for entry in found), "")


def _requests(spec: Mapping[str, Any]) -> Requests:
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    own = (each for each in containers if each["name"] in {STEP_CONTAINER, BUILDKITD_CONTAINER})
    requests = ((each["name"], (each.get("resources") or {}).get("requests") or {}) for each in own)
    return tuple((name, str(each.get("cpu", "")), str(each.get("memory", ""))) for name, each in requests)


def _handed(text: str) -> RequestHead | None:
    try:
        return RequestHead.model_validate_json(text) if text else None
    except ValidationError:
        return None


def _inputs(spec: Mapping[str, Any]) -> str:
    volumes = (volume for volume in spec.get("volumes") or () if volume["name"] == INPUTS_VOLUME)
    return next((str(volume.get("configMap", {}).get("name", "")) for volume in volumes), "")


def _claim(spec: Mapping[str, Any]) -> str:
    volumes = (volume for volume in spec.get("volumes") or () if volume["name"] == STATE_VOLUME)
    return next((str((volume.get("persistentVolumeClaim") or {}).get("claimName", "")) for volume in volumes), "")


def _volume(text: str) -> CacheVolumeUse | None:
    try:
        return CacheVolumeUse(text) if text else None
    except ValueError:
        return None


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        return Role.UNKNOWN


def _attempt(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004 - fits in status


def _mode(text: str) -> Mode:
    """Return the mode of a builder; `Unknown` where the annotation is none, as of other pods."""
    try:
        return Mode(text)
    except ValueError:
        return Mode("Unknown")


def platform_of(text: str) -> Platform:
    """Return a platform, also one that only another version of the operator knows: no builder of ours has it."""
    return Platform.parse(text) if text in SUPPORTED else Platform("", text)


def _waiting(container: Mapping[str, Any]) -> Mapping[str, Any]:
    waiting: Mapping[str, Any] = container.get("state", {}).get("waiting", {})
    return waiting if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating") else {}


def _disrupted(conditions: Mapping[str, Any]) -> str:
    if (disruption := conditions.get("DisruptionTarget", {})).get("status") == "True":
        return str(disruption.get("reason", ""))
    # Kueue says so of a pod before it deletes it: for another of more priority, or since its queue was drained.
    if (target := conditions.get("TerminationTarget", {})).get("status") == "True":
        return f"{target.get('reason', '')}: {target.get('message', '')}"
    return ""


def _scheduled_at(condition: Mapping[str, Any]) -> datetime | None:
    when = condition.get("lastTransitionTime") if condition.get("status") == "True" else None
    return _time(when) if when else None


def _started(state: Mapping[str, Any]) -> datetime | None:
    started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return _time(started) if started else None


def _reported_at(meta: Mapping[str, Any]) -> datetime | None:
    """Return when the status was written last, as the API server notes it (server-side apply, "managedFields")."""
    written = (each.get("time") for each in meta.get("managedFields") or () if each.get("subresource") == "status")
    return max((_time(moment) for moment in written if moment), default=None)


def _ended(terminated: Mapping[str, Any] | None, reported_at: datetime | None) -> Ended | None:
    if terminated is None:
        return None
    started, finished = terminated.get("startedAt"), terminated.get("finishedAt")
    return Ended(
        exit_code=terminated["exitCode"],
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        started_at=_time(started) if started else None,
        finished_at=_time(finished) if finished else None,
        reported_at=reported_at,
    )


def _moment(text: str) -> datetime | None:
    """Return the time in an annotation; None where it has none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
