"""The buildkitd beside a build step: a native sidecar.

What Rootless needs beyond Pod Security `restricted`: no seccomp and no AppArmor profile, or those that the chart
lays down (BuildKit makes user and mount namespaces for the RUNs), and privilege escalation (newuidmap has file
capabilities). It stays user 1000 on the node.

With UserNamespace it is root, and privileged, in a user namespace of the pod's own, and nobody outside of it.
Source: https://github.com/moby/buildkit/blob/v0.32.2/examples/kubernetes/pod.userns.yaml
"""

from collections.abc import Iterator
from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.nodes import APP_ARMOR_PROFILE, APP_ARMOR_PROFILE_LABEL, PROFILE_FILE, PROFILE_VERSION
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.plan.actions import Placement
from multiarchbuild.plan.children import BUILDKITD_CONTAINER, STATE_VOLUME
from multiarchbuild.plan.policy import Isolation, Policy, Profile, RootlessPolicy

from .supervisor import SUPERVISE
from .volumes import Volume, claimed, scratch

_CONFIG = "/run/mab/buildkitd"
_CA = "/run/mab/ca"
REGISTRY_CA = "/run/mab/registry-ca"
"""Where buildkitd finds the CA bundles of single registries: not where every connection looks."""
_ROOTLESS_STATE = "/home/user/.local/share/buildkit"
_STATE = "/var/lib/buildkit"
VOLUME_CONTAINER = "volume"
"""Name of the container that makes a volume buildkitd's own."""
_LOG_LIMITS = (
    ("BUILDKIT_STEP_LOG_MAX_SIZE", str(128 << 20)),
    ("BUILDKIT_STEP_LOG_MAX_SPEED", "-1"),
)
"""How much BuildKit passes on of what a RUN prints. By default it cuts at 2 MiB and at 200 KiB a second, which a
verbose build reaches before its error. Beyond this it shows the last 256 KiB (util/progress/logs). The step keeps the
end of it, and the kubelet rotates its log."""
_IN_USER_NAMESPACE = """\
read -r inside outside count < /proc/self/uid_map
if [ "$outside" = 0 ]; then
  echo "this pod got no user namespace (hostUsers: false): buildkitd would be root of the node and is not started" >&2
  exit 1
fi
exec buildkitd "$@"
"""
"""What starts buildkitd. API servers and runtimes that do not know hostUsers ignore it, and leave it privileged."""


def size(resources: Resources, build: MultiArchBuild, policy: Policy) -> str | int:
    """Return how much the builder's volume may hold: as much as its container may write, where that has a limit."""
    usual = policy.volume_sizes(build.metadata.namespace).builder
    return resources.limits.get("ephemeral-storage", usual)


def sizes(build: MultiArchBuild, policy: Policy) -> Iterator[str | int]:
    """Yield that of every builder of `build`."""
    scheduling, namespace = build.spec.scheduling, build.metadata.namespace
    for own in (scheduling.resources, *(override.resources for override in scheduling.overrides)):
        if own is not None:
            yield size(policy.resources(own, namespace), build, policy)


def volumes(config_map: str, policy: Policy, size: str | int, claim: str = "") -> list[Volume]:
    """Return the volumes that only buildkitd mounts: its state is on `claim`, or in a folder that may hold `size`."""
    state = _ROOTLESS_STATE if _rootless(policy) else _STATE
    key = mounts.BUILDKITD_VOLUME_FILE if claim else mounts.BUILDKITD_FILE
    items = [{"key": key, "path": mounts.BUILDKITD_FILE}]
    found = [
        Volume("buildkitd-config", _CONFIG, {"configMap": {"name": config_map, "items": items}}),
        claimed(STATE_VOLUME, state, claim) if claim else scratch(STATE_VOLUME, state, size),
    ]
    if policy.ca_bundle:
        found.append(_from_inputs("buildkitd-ca", _CA, config_map, mounts.CA_FILE))
    if bundles := registry_bundles(policy):
        found.append(_from_inputs("buildkitd-registry-ca", REGISTRY_CA, config_map, *bundles))
    return found


def owner(policy: Policy, resources: Resources, own: list[Volume]) -> list[dict[str, Any]]:
    """Return what lets a buildkitd that is not root write to a volume of its own, which belongs to root when it is new.

    Not fsGroup: see `pod._spec`. Where it may not, as on NFS, the volume may be open to everybody all the same.
    """
    if not _rootless(policy):
        return []
    state = next(volume for volume in own if volume.name == STATE_VOLUME)
    return [
        {
            "name": VOLUME_CONTAINER,
            "image": policy.buildkit_image,
            "imagePullPolicy": policy.images.pull_policy,
            "command": ["/bin/sh", "-c", f"chown 1000:1000 {state.path} || true"],
            # No more than those of buildkitd, which count anyway: it has ended when that starts.
            "resources": resources.model_dump(by_alias=True, exclude_defaults=True),
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [state.mount],
        }
    ]


def registry_bundles(policy: Policy) -> dict[str, str]:
    """Return the CA bundles of single registries by their key in the run's ConfigMap."""
    return {
        mounts.REGISTRY_CA_FILE.format(number): registry.ca_bundle
        for number, registry in enumerate(policy.registries)
        if registry.ca_bundle
    }


def container(
    policy: Policy,
    resources: Resources,
    own: list[Volume],
    socket: Volume,
    *,
    kept: bool = False,
    app_armor: str = "",
) -> dict[str, Any]:
    """Return the sidecar; it has no probe, since the step itself waits for the socket.

    Args:
        policy: The operator's.
        resources: Of the container.
        own: Volumes that nothing else mounts.
        socket: The volume with the socket.
        kept: Whether it is for several builds.
        app_armor: Name of its AppArmor profile; empty where it names none.
    """
    rootless = _rootless(policy)
    arguments = ["--config", f"{_CONFIG}/{mounts.BUILDKITD_FILE}", "--addr", mounts.BUILDKIT_ADDRESS]
    # The socket must be open to the step, which is never root.
    arguments += ["--oci-worker-no-process-sandbox"] if rootless else ["--group", "1000"]
    result: dict[str, Any] = {
        "name": BUILDKITD_CONTAINER,
        "image": policy.buildkit_image,
        "imagePullPolicy": policy.images.pull_policy,
        "restartPolicy": "Always",
        "args": arguments,
        # Base images, the cache, the push, named contexts and ADD go by these; RUNs have build arguments.
        "env": [{"name": name, "value": value} for name, value in _environment(policy)],
        "resources": resources.model_dump(by_alias=True, exclude_defaults=True),
        # When it does not start, the pod's status says why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _unprivileged(policy.rootless, app_armor)
        if rootless
        else {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
        "volumeMounts": [volume.mount for volume in (*own, socket)],
    }
    if rootless:
        result["command"] = ["/bin/sh", "-c", SUPERVISE, "supervise", "rootlesskit", "buildkitd"]
        result["env"] += [{"name": "MAB_SWEEP", "value": mounts.BUILDKIT}] if kept else []
    if policy.isolation is Isolation.USER_NAMESPACE:
        result["command"] = ["/bin/sh", "-ec", _IN_USER_NAMESPACE, "buildkitd"]
    if policy.ca_bundle:
        # Go reads every file of these folders; the first is where the image's own certificates are.
        result["env"].append({"name": "SSL_CERT_DIR", "value": f"/etc/ssl/certs:{_CA}"})
    return result


def _environment(policy: Policy) -> tuple[tuple[str, str], ...]:
    return (*_LOG_LIMITS, *policy.proxy.environment.items(), *_tracing(policy))


def _tracing(policy: Policy) -> tuple[tuple[str, str], ...]:
    """Return what tells buildkitd where its spans go, and those that buildctl hands to it; metrics go nowhere.

    Source: https://github.com/moby/buildkit/blob/v0.32.2/util/tracing/detect/otlp.go
    """
    if not policy.tracing.enabled:
        return ()
    return (
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", policy.tracing.url),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_SERVICE_NAME", "buildkitd"),
    )


def has_small_ids(policy: Policy) -> bool:
    """Return whether RUNs have user and group ids up to 65535 only: those of one user namespace."""
    return policy.isolation is not Isolation.PRIVILEGED


def is_supervised(policy: Policy) -> bool:
    """Return whether what a RUN leaves behind is ended by the supervisor: elsewhere its process namespace ends it."""
    return _rootless(policy)


def _rootless(policy: Policy) -> bool:
    return policy.isolation is Isolation.ROOTLESS


def app_armor_profile(policy: Policy, placement: Placement) -> str:
    """Return the AppArmor profile of a builder that goes there; empty where it names none."""
    loaded = (APP_ARMOR_PROFILE_LABEL, PROFILE_VERSION) in placement.node_selector
    return APP_ARMOR_PROFILE if loaded else policy.rootless.app_armor_profile


def _unprivileged(rootless: RootlessPolicy, app_armor: str) -> dict[str, Any]:
    own: dict[str, Any] = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}
    if rootless.profile is Profile.UNCONFINED:
        return {**own, "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"}}
    own["seccompProfile"] = {"type": "Localhost", "localhostProfile": PROFILE_FILE}
    if app_armor:
        own["appArmorProfile"] = {"type": "Localhost", "localhostProfile": app_armor}
    return own


def _from_inputs(name: str, path: str, config_map: str, *keys: str) -> Volume:
    items = [{"key": key, "path": key} for key in keys]
    return Volume(name, path, {"configMap": {"name": config_map, "items": items}})
