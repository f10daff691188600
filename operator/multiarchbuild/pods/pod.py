"""The pods of the three steps."""

from collections.abc import Sequence
from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Override, Resources, Toleration
from multiarchbuild.plan.actions import AnnotateBuilt, AnnotateSource, StartBuild, StartPublish, StartResolve
from multiarchbuild.plan.children import (
    ATTEMPT_LABEL,
    MODE_ANNOTATION,
    PLACEMENT_ANNOTATION,
    PLATFORMS_ANNOTATION,
    ROLE_LABEL,
    STEP_CONTAINER,
    Role,
)
from multiarchbuild.plan.policy import Isolation, Policy

from . import builder, volumes
from .meta import metadata
from .volumes import Volume

_USER = 1000
_GRACE = 2
"""Seconds that a pod gets to end: a build that is deleted has nothing to save."""
_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of a node that does not answer any more."""
_LOST_SECONDS = 15
"""How long a pod waits for such a node. What it built there is lost anyway; a blip should not cost a build."""
_STEP_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}}

_Start = StartResolve | StartBuild | StartPublish


def resolve_pod(action: StartResolve, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that finds what a branch or tag means."""
    mounted = [volumes.inputs(action.inputs), volumes.work(), *volumes.source_secret(build.spec)]
    if build.spec.source.oci:
        mounted += volumes.registry_secrets(build.spec)
    spec = _spec(action, build, policy, ["resolve"], mounted)
    return _pod(action, build, action.role, spec)


def publish_pod(action: StartPublish, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that pushes the index, signs it and moves the tags."""
    built = volumes.pod_info(mounts.BUILT_FILE, mounts.BUILT_ANNOTATION)
    mounted = [volumes.inputs(action.inputs), volumes.work(), built, *volumes.registry_secrets(build.spec)]
    mounted += volumes.signing_secret(build.spec)
    spec = _spec(action, build, policy, ["publish", *(f"--tag={tag}" for tag in action.tags)], mounted)
    annotations = AnnotateBuilt(action.name, action.built).annotations if action.built else {}
    return _pod(action, build, Role.PUBLISH, spec, annotations)


def build_pod(action: StartBuild, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that builds: buildkitd as a native sidecar (KEP-753), the step beside it."""
    spec, socket = build.spec, volumes.socket()
    source = volumes.pod_info(mounts.SOURCE_FILE, mounts.SOURCE_ANNOTATION)
    mounted = [volumes.inputs(action.inputs), volumes.work(), source, socket]
    mounted += [*volumes.registry_secrets(spec), *volumes.source_secret(spec), *volumes.build_secrets(spec)]
    own = builder.volumes(action.inputs, policy)
    arguments = [f"--platform={platform}" for platform in action.platforms]
    arguments += [f"--cache-to={action.cache.export_to}"] if action.cache.export_to else []
    arguments += [f"--cache-from={ref}" for ref in action.cache.import_from]
    pod = _spec(action, build, policy, ["build", *arguments], mounted)
    pod["volumes"] += [volume.volume for volume in own]
    pod["initContainers"] = [builder.container(policy, _resources(action, build, policy), own, socket)]
    pod |= _scheduling(action, build)
    if policy.isolation is Isolation.USER_NAMESPACE:
        pod["hostUsers"] = False
    annotations = {
        PLATFORMS_ANNOTATION: ",".join(map(str, action.platforms)),
        MODE_ANNOTATION: str(action.placement.mode),
    }
    if action.placement.slug:
        annotations[PLACEMENT_ANNOTATION] = action.placement.slug
    if action.source:
        annotations |= AnnotateSource(action.name, action.source).annotations
    return _pod(action, build, Role.BUILD, pod, annotations)


def _pod(
    action: _Start,
    build: MultiArchBuild,
    role: Role,
    spec: dict[str, Any],
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    labels = {ROLE_LABEL: str(role), ATTEMPT_LABEL: str(action.attempt)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(build, action.name, action.run_id, labels=labels, annotations=annotations),
        "spec": spec,
    }


def _spec(
    action: _Start, build: MultiArchBuild, policy: Policy, arguments: Sequence[str], mounted: Sequence[Volume]
) -> dict[str, Any]:
    scheduling = build.spec.scheduling
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": action.deadline,
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": scheduling.service_account_name,
        # No fsGroup: it would make buildkitd's state setgid, and with it every folder that a build makes in its image.
        # No runAsGroup either: without a user beside it, no sandbox starts.
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [_step(policy, arguments, mounted)],
        "volumes": [volume.volume for volume in mounted],
    }
    if scheduling.priority_class_name:
        spec["priorityClassName"] = scheduling.priority_class_name
    spec["tolerations"] = _tolerations(scheduling.tolerations)
    return spec


def _step(policy: Policy, arguments: Sequence[str], mounted: Sequence[Volume]) -> dict[str, Any]:
    return {
        "name": STEP_CONTAINER,
        "image": policy.images.step,
        "imagePullPolicy": policy.images.pull_policy,
        "command": ["python3", "-m", "multiarchbuild", "step"],
        # The kubelet expands $(NAME) in arguments, and reads $$ as $.
        "args": [argument.replace("$", "$$") for argument in arguments],
        "workingDir": mounts.WORK,
        "env": [{"name": "HOME", "value": mounts.WORK}, {"name": "TMPDIR", "value": mounts.WORK}],
        "resources": _STEP_RESOURCES,
        "securityContext": {
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [volume.mount for volume in mounted],
    }


def _scheduling(action: StartBuild, build: MultiArchBuild) -> dict[str, Any]:
    scheduling, override = build.spec.scheduling, _override(action, build)
    tolerations = [*scheduling.tolerations, *(override.tolerations if override else ())]
    result: dict[str, Any] = {
        "nodeSelector": dict(action.placement.node_selector),
        "tolerations": _tolerations(tolerations),
    }
    if affinity := override.affinity if override and override.affinity else scheduling.affinity:
        result["affinity"] = _dump(affinity)
    return result


def _tolerations(own: Sequence[Toleration]) -> list[dict[str, Any]]:
    """Return `own` with an end to waiting for a node that is lost: by default a pod would stay there for 300 s."""
    said = {toleration.key for toleration in own if toleration.effect in ("", "NoExecute")}
    lost = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _LOST_SECONDS}
        for key in _LOST
        if not said & {key, ""}
    ]
    return [*(_dump(toleration) for toleration in own), *lost]


def _resources(action: StartBuild, build: MultiArchBuild, policy: Policy) -> Resources:
    override = _override(action, build)
    if override and override.resources is not None:
        return policy.resources(override.resources)
    return policy.resources(build.spec.scheduling.resources)


def _override(action: StartBuild, build: MultiArchBuild) -> Override | None:
    """Return what differs for the platform; a pod that builds several has no overrides."""
    if len(action.platforms) != 1:
        return None
    (platform,) = action.platforms
    overrides = build.spec.scheduling.overrides
    return next((entry for entry in overrides if platform.parse(entry.platform) == platform), None)


def _dump(model: Any) -> dict[str, Any]:
    result: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return result
