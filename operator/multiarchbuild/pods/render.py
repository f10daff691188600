"""One manifest for each action that creates something, and what a request to a kept builder changes."""

from typing import Any

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import (
    EnsureClaim,
    EnsureInputs,
    HandOver,
    KeepRecord,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.policy import Policy

from .claim import claim
from .inputs import config_map, record
from .pod import build_pod, publish_pod, resolve_pod
from .request import request


def render(
    action: EnsureInputs | EnsureClaim | StartResolve | StartBuild | StartPublish | HandOver | KeepRecord,
    build: MultiArchBuild,
    policy: Policy,
) -> dict[str, Any]:
    """Return the v1 object that `action` creates for `build`, or the labels and annotations that it sets."""
    match action:
        case EnsureInputs():
            return config_map(action, build, policy)
        case EnsureClaim():
            return claim(action, build)
        case StartResolve():
            return resolve_pod(action, build, policy)
        case StartBuild():
            return build_pod(action, build, policy)
        case StartPublish():
            return publish_pod(action, build, policy)
        case HandOver():
            return request(action, build, policy)
        case KeepRecord():
            return record(action, build)
