"""One manifest for each action that creates something."""

from typing import Any

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import EnsureInputs, StartBuild, StartPublish, StartResolve
from multiarchbuild.plan.policy import Policy

from .inputs import config_map
from .pod import build_pod, publish_pod, resolve_pod


def render(
    action: EnsureInputs | StartResolve | StartBuild | StartPublish, build: MultiArchBuild, policy: Policy
) -> dict[str, Any]:
    """Return the v1 ConfigMap or Pod that `action` creates for `build`."""
    match action:
        case EnsureInputs():
            return config_map(action, build, policy)
        case StartResolve():
            return resolve_pod(action, build, policy)
        case StartBuild():
            return build_pod(action, build, policy)
        case StartPublish():
            return publish_pod(action, build, policy)
