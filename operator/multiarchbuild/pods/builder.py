"""The buildkitd beside a build step: a native sidecar.

What Rootless needs beyond Pod Security `restricted`: no seccomp and no AppArmor profile (BuildKit makes user and mount
namespaces for the RUNs) and privilege escalation (newuidmap has file capabilities). It stays user 1000 on the node.

With UserNamespace it is root, and privileged, in a user namespace of the pod's own, and nobody outside of it.
Source: https://github.com/moby/buildkit/blob/v0.32.2/examples/kubernetes/pod.userns.yaml
"""

from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.plan.children import BUILDKITD_CONTAINER
from multiarchbuild.plan.policy import Isolation, Policy

from .volumes import Volume

_CONFIG = "/run/mab/buildkitd"
_CA = "/run/mab/ca"
REGISTRY_CA = "/run/mab/registry-ca"
"""Where buildkitd finds the CA bundles of single registries: not where every connection looks."""
_ROOTLESS_STATE = "/home/user/.local/share/buildkit"
_STATE = "/var/lib/buildkit"
_IN_USER_NAMESPACE = """\
read -r inside outside count < /proc/self/uid_map
if [ "$outside" = 0 ]; then
  echo "this pod got no user namespace (hostUsers: false): buildkitd would be root of the node and is not started" >&2
  exit 1
fi
exec buildkitd "$@"
"""
"""What starts buildkitd. API servers and runtimes that do not know hostUsers ignore it, and leave it privileged."""


def volumes(config_map: str, policy: Policy) -> list[Volume]:
    """Return the volumes that only buildkitd mounts."""
    found = [
        _from_inputs("buildkitd-config", _CONFIG, config_map, mounts.BUILDKITD_FILE),
        Volume("buildkitd-state", _ROOTLESS_STATE if _rootless(policy) else _STATE, {"emptyDir": {}}, read_only=False),
    ]
    if policy.ca_bundle:
        found.append(_from_inputs("buildkitd-ca", _CA, config_map, mounts.CA_FILE))
    if bundles := registry_bundles(policy):
        found.append(_from_inputs("buildkitd-registry-ca", REGISTRY_CA, config_map, *bundles))
    return found


def registry_bundles(policy: Policy) -> dict[str, str]:
    """Return the CA bundles of single registries by their key in the run's ConfigMap."""
    return {
        mounts.REGISTRY_CA_FILE.format(number): registry.ca_bundle
        for number, registry in enumerate(policy.registries)
        if registry.ca_bundle
    }


def container(policy: Policy, resources: Resources, own: list[Volume], socket: Volume) -> dict[str, Any]:
    """Return the sidecar; it has no probe, since the step itself waits for the socket."""
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
        "resources": resources.model_dump(by_alias=True, exclude_defaults=True),
        # When it does not start, the pod's status says why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _unprivileged() if rootless else {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
        "volumeMounts": [volume.mount for volume in (*own, socket)],
    }
    if policy.isolation is Isolation.USER_NAMESPACE:
        result["command"] = ["/bin/sh", "-ec", _IN_USER_NAMESPACE, "buildkitd"]
    if policy.ca_bundle:
        # Go reads every file of these folders; the first is where the image's own certificates are.
        result["env"] = [{"name": "SSL_CERT_DIR", "value": f"/etc/ssl/certs:{_CA}"}]
    return result


def _rootless(policy: Policy) -> bool:
    return policy.isolation is Isolation.ROOTLESS


def _unprivileged() -> dict[str, Any]:
    return {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    }


def _from_inputs(name: str, path: str, config_map: str, *keys: str) -> Volume:
    items = [{"key": key, "path": key} for key in keys]
    return Volume(name, path, {"configMap": {"name": config_map, "items": items}})
