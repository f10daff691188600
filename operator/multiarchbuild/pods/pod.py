"""The pods of the three steps."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from multiarchbuild import __version__
from multiarchbuild.api import mounts
from multiarchbuild.api.answers import REQUEST_ENV
from multiarchbuild.api.base import Model
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Override, Resources, Toleration
from multiarchbuild.plan import expiry
from multiarchbuild.plan.actions import (
    UNDISTURBED,
    StartBuild,
    StartPublish,
    StartResolve,
    built_annotations,
    source_annotations,
)
from multiarchbuild.plan.children import (
    ATTEMPT_LABEL,
    DESTINATIONS_ANNOTATION,
    IMAGE_ANNOTATION,
    MODE_ANNOTATION,
    PLACEMENT_ANNOTATION,
    PLATFORMS_ANNOTATION,
    ROLE_LABEL,
    STEP_CONTAINER,
    TAGS_ANNOTATION,
    TEMPLATE_ANNOTATION,
    VOLUME_ANNOTATION,
    Role,
)
from multiarchbuild.plan.identity import digest
from multiarchbuild.plan.policy import Isolation, Policy

from . import builder, injection, tokens, volumes
from .meta import metadata
from .volumes import Volume

_USER = 1000
_GRACE = 2
"""Seconds that a pod gets to end: a build that is deleted has nothing to save."""
_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of a node that does not answer any more."""
_LOST_SECONDS = 15
"""How long a pod waits for such a node. What it built there is lost anyway; a blip should not cost a build."""

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_KeptT = TypeVar("_KeptT", StartBuild, StartPublish)
_Start = StartResolve | StartBuild | StartPublish


def resolve_pod(action: StartResolve, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that finds what a branch or tag means, of the source or of base images."""
    if action.role is Role.CHECK_BASES:
        mounted = [volumes.inputs(action.inputs), _work(build, policy), *volumes.registry_secrets(build.spec)]
        mounted += volumes.identity_tokens(build.spec, policy.identities)
        asked = ["resolve", *(f"--base={base}" for base in action.bases), *tokens.arguments(build, policy)]
        return _pod(action, build, policy, action.role, _spec(action, build, policy, action.role, asked, mounted))
    mounted = [volumes.inputs(action.inputs), _work(build, policy), *volumes.source_secret(build.spec)]
    arguments = [f"--artifact={_json(action.artifact)}"] if action.artifact else []
    if build.spec.source.oci or action.last:
        mounted += volumes.registry_secrets(build.spec)
        mounted += volumes.identity_tokens(build.spec, policy.identities)
        arguments += tokens.arguments(build, policy)
    arguments += [f"--paths={_json(action.paths)}"] if action.paths else []
    if action.last:
        mounted += volumes.destination_secrets(build.spec)
        arguments.append(f"--last={_json(action.last)}")
    spec = _spec(action, build, policy, action.role, ["resolve", *arguments], mounted)
    return _pod(action, build, policy, action.role, spec)


def publish_pod(action: StartPublish, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that pushes the index, signs it and moves the tags."""
    return _kept(_publish_pod(action, build, policy, publish_arguments(action, build, policy)), action, build, policy)


def publish_arguments(action: StartPublish, build: MultiArchBuild, policy: Policy) -> list[str]:
    """Return what a publish step is told that each run has its own of."""
    return [*(f"--tag={tag}" for tag in action.tags), *expiry.arguments(build, policy)]


def _publish_pod(
    action: StartPublish, build: MultiArchBuild, policy: Policy, arguments: Sequence[str]
) -> dict[str, Any]:
    files = {mounts.BUILT_FILE: mounts.BUILT_ANNOTATION}
    if action.keep:
        files |= _REQUEST_FILES
    built = volumes.pod_info(files)
    mounted = [volumes.inputs(action.inputs), _work(build, policy), built, *volumes.registry_secrets(build.spec)]
    rules = policy.rules_for(build.metadata.namespace)
    mounted += [*volumes.destination_secrets(build.spec), *volumes.signing(build.spec, rules.signing.keyless)]
    mounted += volumes.identity_tokens(build.spec, policy.identities)
    stays = [f"--stay={action.keep.idle}"] if action.keep else []
    own = [*stays, *arguments, *tokens.arguments(build, policy, sign=True)]
    spec = _spec(action, build, policy, Role.PUBLISH, ["publish", *own], mounted)
    if action.keep:
        spec["activeDeadlineSeconds"] = action.keep.life
    if action.near:
        spec["affinity"] = {"nodeAffinity": {_PREFERRED: [{"weight": 100, "preference": _named(action.near)}]}}
    annotations = {IMAGE_ANNOTATION: build.spec.output.image, TAGS_ANNOTATION: ",".join(action.tags)}
    if build.spec.output.destinations:
        annotations[DESTINATIONS_ANNOTATION] = ",".join(each.image for each in build.spec.output.destinations)
    if action.built:
        annotations |= built_annotations(action.built)
    return _pod(action, build, policy, Role.PUBLISH, spec, annotations)


def _named(node: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}


def build_pod(action: StartBuild, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the pod that builds: buildkitd as a native sidecar (KEP-753), the step beside it."""
    return _kept(_build_pod(action, build, policy), action, build, policy)


def _kept(
    pod: dict[str, Any], action: StartBuild | StartPublish, build: MultiArchBuild, policy: Policy
) -> dict[str, Any]:
    """Return `pod` with what hands it more work, if it stays."""
    if action.keep:
        pod["metadata"]["annotations"] |= {
            TEMPLATE_ANNOTATION: template(action, build, policy),
            mounts.REQUEST_ANNOTATION: "",
            mounts.IDLE_ANNOTATION: "",
        }
    return pod


_REQUEST_FILES = {mounts.REQUEST_FILE: mounts.REQUEST_ANNOTATION, mounts.IDLE_FILE: mounts.IDLE_ANNOTATION}
_ANY = "any"
_EVER = datetime.max.replace(tzinfo=UTC)


def template(action: StartBuild | StartPublish, build: MultiArchBuild, policy: Policy) -> str:
    """Return a hash of all that this pod has in common with those of other runs that could take its place.

    That is its manifest but for what each run has its own of, and what its ConfigMap says beside the inputs of the run.
    A Secret is in it by its name: what is in it the operator cannot know.
    """
    if isinstance(action, StartBuild):
        own = {"until": _EVER, "source": None, "volume": None}
        manifest = _build_pod(_common(action, **own), build, policy)
    else:
        manifest = _publish_pod(_common(action, tags=(), built=None, near=""), build, policy, ())
    return digest(__version__, json.dumps(manifest, sort_keys=True), policy.model_dump_json())[:32]


def _common(action: _KeptT, **own: Any) -> _KeptT:
    return replace(action, name=_ANY, run_id=_ANY, attempt=1, inputs=_ANY, deadline=1, **own)


def _build_pod(action: StartBuild, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    spec, socket = build.spec, volumes.socket()
    files = {mounts.SOURCE_FILE: mounts.SOURCE_ANNOTATION}
    if action.keep:
        files |= _REQUEST_FILES
    source = volumes.pod_info(files)
    mounted = [volumes.inputs(action.inputs), _work(build, policy), source, socket]
    mounted += [*volumes.registry_secrets(spec), *volumes.source_secret(spec), *volumes.build_secrets(spec)]
    # The step asks before the build whether it may push there; only publish does.
    mounted += [*volumes.destination_secrets(spec), *volumes.identity_tokens(spec, policy.identities)]
    resources = _resources(action, build, policy)
    own = builder.volumes(action.inputs, policy, builder.size(resources, build, policy), action.claim)
    arguments = [f"--platform={platform}" for platform in action.platforms]
    # It says how far it came before the kubelet, or the operator, ends it.
    arguments += [f"--seconds={action.deadline}", f"--until={action.until.isoformat()}"]
    arguments += ["--small-ids"] if builder.has_small_ids(policy) else []
    arguments += [f"--keep={action.keep.idle}"] if action.keep else []
    arguments += ["--cache-volume"] if action.claim else []
    arguments += ["--sweep"] if action.keep and builder.is_supervised(policy) else []
    arguments += [f"--cache-to={action.cache.export_to}"] if action.cache.export_to else []
    arguments += [f"--cache-from={ref}" for ref in action.cache.import_from]
    arguments += tokens.arguments(build, policy)
    pod = _spec(action, build, policy, Role.BUILD, ["build", *arguments], mounted)
    pod["volumes"] += [volume.volume for volume in own]
    first = builder.owner(policy, resources, own) if action.claim else []
    profile = builder.app_armor_profile(policy, action.placement)
    buildkitd = builder.container(policy, resources, own, socket, kept=bool(action.keep), app_armor=profile)
    pod["initContainers"] = [*first, buildkitd]
    pod |= _scheduling(action, build, policy)
    if action.keep:
        pod["activeDeadlineSeconds"] = action.keep.life
    if policy.isolation is Isolation.USER_NAMESPACE:
        pod["hostUsers"] = False
    given = spec.scheduling.pod_metadata
    annotations = {
        **given.annotations,
        PLATFORMS_ANNOTATION: ",".join(map(str, action.platforms)),
        MODE_ANNOTATION: str(action.placement.mode),
    }
    if action.volume:
        annotations[VOLUME_ANNOTATION] = str(action.volume)
    if action.placement.slug:
        annotations[PLACEMENT_ANNOTATION] = action.placement.slug
    if action.source:
        annotations |= source_annotations(action.source)
    return _pod(action, build, policy, Role.BUILD, pod, annotations, given.labels)


def _pod(
    action: _Start,
    build: MultiArchBuild,
    policy: Policy,
    role: Role,
    spec: dict[str, Any],
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    # What comes later counts: the policy's own may undo what is against injection, a build may name another queue than
    # the policy does where it may name one, and none of them changes the operator's.
    labels = {**injection.labels(policy.injection), **policy.pod_metadata.labels, **(labels or {})}
    labels |= {ROLE_LABEL: str(role), ATTEMPT_LABEL: str(action.attempt)}
    annotations = {
        **UNDISTURBED,
        **injection.annotations(policy.injection),
        **policy.pod_metadata.annotations,
        **(annotations or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(build, action.name, action.run_id, labels=labels, annotations=annotations),
        "spec": spec,
    }


def _spec(
    action: _Start,
    build: MultiArchBuild,
    policy: Policy,
    role: Role,
    arguments: Sequence[str],
    mounted: Sequence[Volume],
) -> dict[str, Any]:
    scheduling = build.spec.scheduling
    signs = role is Role.PUBLISH and build.spec.output.signing is not None
    nodes = policy.rules_for(build.metadata.namespace).pods(sign=signs)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": action.deadline,
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": scheduling.service_account_name,
        # No fsGroup: it would make buildkitd's state setgid, and with it every folder that a build makes in its image.
        # No runAsGroup either: without a user beside it, no sandbox starts.
        "nodeSelector": {"kubernetes.io/os": "linux", **nodes.node_selector},
        "containers": [_step(action.name, policy, build.metadata.namespace, role, arguments, mounted)],
        "volumes": [volume.volume for volume in mounted],
    }
    if scheduling.priority_class_name:
        spec["priorityClassName"] = scheduling.priority_class_name
    spec["tolerations"] = _tolerations((*scheduling.tolerations, *nodes.tolerations))
    return spec


def _step(
    request: str, policy: Policy, namespace: str, role: Role, arguments: Sequence[str], mounted: Sequence[Volume]
) -> dict[str, Any]:
    return {
        "name": STEP_CONTAINER,
        "image": policy.images.step,
        "imagePullPolicy": policy.images.pull_policy,
        "command": ["python3", "-m", "multiarchbuild", "step"],
        # The kubelet expands $(NAME) in arguments, and reads $$ as $.
        "args": [argument.replace("$", "$$") for argument in arguments],
        "workingDir": mounts.WORK,
        "env": [
            {"name": "HOME", "value": mounts.WORK},
            {"name": "TMPDIR", "value": mounts.WORK},
            {"name": REQUEST_ENV, "value": request},
            *({"name": name, "value": value} for name, value in policy.proxy.environment.items()),
        ],
        "resources": _dump(policy.step(role, namespace)),
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


def _scheduling(action: StartBuild, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    scheduling, override = build.spec.scheduling, _override(action, build)
    nodes = policy.rules_for(build.metadata.namespace).pods()
    tolerations = [*scheduling.tolerations, *(override.tolerations if override else ()), *nodes.tolerations]
    result: dict[str, Any] = {
        "nodeSelector": {**dict(action.placement.node_selector), **nodes.node_selector},
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
    own = override.resources if override and override.resources is not None else build.spec.scheduling.resources
    return policy.resources(own, build.metadata.namespace)


def _work(build: MultiArchBuild, policy: Policy) -> Volume:
    return volumes.work(policy.volume_sizes(build.metadata.namespace))


def _override(action: StartBuild, build: MultiArchBuild) -> Override | None:
    """Return what differs for the platform; a pod that builds several has no overrides."""
    if len(action.platforms) != 1:
        return None
    (platform,) = action.platforms
    overrides = build.spec.scheduling.overrides
    return next((entry for entry in overrides if platform.parse(entry.platform) == platform), None)


def _json(model: Model) -> str:
    return model.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)


def _dump(model: Any) -> dict[str, Any]:
    result: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return result
