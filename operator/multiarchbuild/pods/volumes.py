"""What the step container sees of the cluster: volumes and where they are mounted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.identity import Identities, token_file
from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.children import INPUTS_VOLUME
from multiarchbuild.plan.logins import logins
from multiarchbuild.plan.pod_policy import VolumeSizes

_SECRET_MODE = 0o444
"""The files belong to root, and the step is not: only containers of the pod that mount them can see them."""

_TOKEN_SECONDS = 3600
"""Life of a token; the kubelet replaces it after four fifths of that."""
_SIGNING_SECONDS = 600
"""Likewise, of one that is good for a signature: the shortest that Kubernetes makes."""
_SOCKET_SIZE = "1Mi"
"""Of a folder with a socket in it."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of the pod, mounted into the step."""

    name: str
    path: str
    source: dict[str, Any]
    read_only: bool = True

    @property
    def volume(self) -> dict[str, Any]:
        """The entry of `volumes`."""
        return {"name": self.name, **self.source}

    @property
    def mount(self) -> dict[str, Any]:
        """The entry of `volumeMounts`."""
        entry: dict[str, Any] = {"name": self.name, "mountPath": self.path}
        return {**entry, "readOnly": True} if self.read_only else entry


def inputs(config_map: str) -> Volume:
    """The run's ConfigMap."""
    return Volume(INPUTS_VOLUME, mounts.INPUTS, {"configMap": {"name": config_map}})


def work(sizes: VolumeSizes) -> Volume:
    """The only folder that a step writes to."""
    return scratch("work", mounts.WORK, sizes.work)


def socket() -> Volume:
    """Where buildkitd listens."""
    return scratch("buildkit", mounts.BUILDKIT, _SOCKET_SIZE)


def scratch(name: str, path: str, size: str | int) -> Volume:
    """A folder on the node's disk that may hold `size` bytes, as Kubernetes writes amounts."""
    return Volume(name, path, {"emptyDir": {"sizeLimit": str(size)}}, read_only=False)


def claimed(name: str, path: str, claim: str) -> Volume:
    """What outlives the pod."""
    return Volume(name, path, {"persistentVolumeClaim": {"claimName": claim}}, read_only=False)


def pod_info(files: Mapping[str, str]) -> Volume:
    """Annotations of the pod by their file: the operator hands over what the pod was started too early to know."""
    items = [
        {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for file, annotation in files.items()
    ]
    return Volume("pod", mounts.POD_INFO, {"downwardAPI": {"items": items}})


def registry_secrets(spec: Spec) -> list[Volume]:
    """Credentials of registries."""
    return [
        _secret(f"docker-{index}", f"{mounts.DOCKER}/{index}", ref.name)
        for index, ref in enumerate(spec.output.secret_refs)
    ]


def destination_secrets(spec: Spec) -> list[Volume]:
    """Credentials of further destinations, each apart: they may be of one registry."""
    return [
        _secret(f"destination-{number}-{index}", f"{mounts.DESTINATIONS}/{number}/{index}", ref.name)
        for number, destination in enumerate(spec.output.destinations)
        for index, ref in enumerate(destination.secret_refs)
    ]


def identity_tokens(spec: Spec, identities: Identities) -> list[Volume]:
    """Tokens of the pod's ServiceAccount for the providers of identities, and for nobody else."""
    audiences = dict.fromkeys(filter(None, (identities.audience(login.identity) for login in logins(spec))))
    sources = [
        {
            "serviceAccountToken": {
                "audience": audience,
                "expirationSeconds": _TOKEN_SECONDS,
                "path": token_file(audience),
            }
        }
        for audience in audiences
    ]
    return [Volume("identity", mounts.IDENTITY, {"projected": {"sources": sources}})] if sources else []


def signing(spec: Spec, keyless: Keyless | None) -> list[Volume]:
    """What signs the index: a key, or a token of the pod's ServiceAccount for the Fulcio of the policy."""
    asked = spec.output.signing
    if asked and asked.secret_ref:
        return [_secret("signing", mounts.SIGNING, asked.secret_ref.name)]
    if asked and asked.keyless and keyless:
        token = {"audience": keyless.audience, "expirationSeconds": _SIGNING_SECONDS, "path": mounts.TOKEN_FILE}
        return [Volume("signing", mounts.SIGNING, {"projected": {"sources": [{"serviceAccountToken": token}]}})]
    return []


def source_secret(spec: Spec) -> list[Volume]:
    """Credentials of the git repository or of the server of the archive."""
    git, http = spec.source.git, spec.source.http
    if git and git.secret_ref:
        return [_secret("git", mounts.GIT, git.secret_ref.name)]
    return [_secret("http", mounts.HTTP, http.secret_ref.name)] if http and http.secret_ref else []


def build_secrets(spec: Spec) -> list[Volume]:
    """Secrets and key for RUN --mount."""
    volumes = [
        _secret(
            f"secret-{index}",
            f"{mounts.SECRETS}/{secret.id}",
            secret.secret_key_ref.name,
            keys=[secret.secret_key_ref.key],
        )
        for index, secret in enumerate(spec.build.secrets)
    ]
    if spec.build.ssh:
        volumes.append(_secret("ssh", mounts.SSH, spec.build.ssh.secret_ref.name))
    return volumes


def _secret(name: str, path: str, secret: str, keys: list[str] | None = None) -> Volume:
    # Optional: a Secret that is missing is reported by the step, not by a pod that never starts.
    source: dict[str, Any] = {"secretName": secret, "optional": True, "defaultMode": _SECRET_MODE}
    if keys:
        source["items"] = [{"key": key, "path": key} for key in keys]
    return Volume(name, path, {"secret": source})
