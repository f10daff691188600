"""What the step container sees of the cluster: volumes and where they are mounted."""

from dataclasses import dataclass
from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.spec import Spec

_SECRET_MODE = 0o444
"""The files belong to root, and the step is not: only containers of the pod that mount them can see them."""


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
    return Volume("inputs", mounts.INPUTS, {"configMap": {"name": config_map}})


def work() -> Volume:
    """The only folder that a step writes to."""
    return Volume("work", mounts.WORK, {"emptyDir": {}}, read_only=False)


def socket() -> Volume:
    """Where buildkitd listens."""
    return Volume("buildkit", mounts.BUILDKIT, {"emptyDir": {}}, read_only=False)


def pod_info(file: str, annotation: str) -> Volume:
    """An annotation of the pod, in which the operator hands over what the pod was started too early to know."""
    item = {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
    return Volume("pod", mounts.POD_INFO, {"downwardAPI": {"items": [item]}})


def registry_secrets(spec: Spec) -> list[Volume]:
    """Credentials of registries."""
    return [
        _secret(f"docker-{index}", f"{mounts.DOCKER}/{index}", ref.name)
        for index, ref in enumerate(spec.output.secret_refs)
    ]


def signing_secret(spec: Spec) -> list[Volume]:
    """The key that signs the index."""
    signing = spec.output.signing
    return [_secret("signing", mounts.SIGNING, signing.secret_ref.name)] if signing else []


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
            secret.secret_ref.name,
            keys=[secret.secret_ref.key],
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
