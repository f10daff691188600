"""Performs what was decided, one idempotent request for each action."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import (
    Action,
    AnnotateBuilt,
    AnnotateSource,
    DeleteConfigMap,
    DeletePod,
    EnsureInputs,
    EventRecord,
    Start,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.policy import Policy

from .kube import (
    BUILDS,
    CONFIG_MAPS,
    EVENTS,
    PODS,
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Kind,
    Kube,
    NotFound,
)
from .logs import logger

_LOG = logger(__name__)

Render = Callable[[Start, MultiArchBuild, Policy], dict[str, Any]]
"""Returns the manifest that an action asks for."""

EVENT_NOTE: Final = 1024
"""Bytes of an Event's note (events.k8s.io/v1)."""


class Rejected(Exception):  # noqa: N818 - what the API server did
    """The API server refused to create a child, and would again: the message is its own."""

    def __init__(self, action: Start, message: str) -> None:
        """`action`: what was refused."""
        super().__init__(message)
        self.action = action


class Gone(Exception):  # noqa: N818
    """The build or its namespace is being deleted: there is nothing left to do."""


class Applier:
    """Performs actions and posts Events for builds."""

    def __init__(self, kube: Kube, render: Render, policy: Policy, instance: str) -> None:
        """`instance`: name of this operator process, for Events."""
        self._kube, self._render, self._policy, self._instance = kube, render, policy, instance
        self._posted: dict[str, None] = {}

    async def perform(self, build: MultiArchBuild, action: Action) -> None:
        """Perform one action; once more is the same as once.

        Raises:
            Rejected: A child was refused by admission: quota, Pod Security, a webhook, validation.
            Gone: The namespace is being deleted.
            KubeError: Anything else, to be tried again.
        """
        namespace = build.metadata.namespace
        match action:
            case EnsureInputs():
                await self._create(CONFIG_MAPS, build, action)
            case StartResolve() | StartBuild() | StartPublish():
                await self._create(PODS, build, action)
            case AnnotateSource(pod=pod) | AnnotateBuilt(pod=pod):
                try:
                    await self._kube.annotate(PODS, namespace, pod, action.annotations)
                except NotFound:
                    _LOG.info("pod is gone, nothing is handed to it", pod=pod)
            case DeletePod(name=name, uid=uid):
                await self._delete(PODS, namespace, name, uid)
            case DeleteConfigMap(name=name, uid=uid):
                await self._delete(CONFIG_MAPS, namespace, name, uid)

    async def post(self, build: MultiArchBuild, event: EventRecord) -> None:
        """Post an Event once: its name is a hash of its key, so that the API server knows it already."""
        name = _event_name(build, event)
        if name in self._posted:
            return
        try:
            await self._kube.create(EVENTS, build.metadata.namespace, self._event(build, event, name))
        except AlreadyExists:
            pass
        except (Forbidden, NotFound) as error:
            if not (isinstance(error, NotFound) or error.namespace_terminating):
                raise
        self._posted[name] = None
        if len(self._posted) > 10_000:  # noqa: PLR2004 - only a short cut; the API server knows them all
            del self._posted[next(iter(self._posted))]

    async def _create(self, kind: Kind, build: MultiArchBuild, action: Start) -> None:
        manifest = self._render(action, build, self._policy)
        try:
            await self._kube.create(kind, build.metadata.namespace, manifest)
        except AlreadyExists:
            return
        except NotFound as error:
            raise Gone(str(error)) from error
        except Forbidden as error:
            if error.namespace_terminating:
                raise Gone(str(error)) from error
            raise Rejected(action, str(error)) from error
        except Invalid as error:
            raise Rejected(action, str(error)) from error
        _LOG.info("created", kind=kind.kind, child=action.name, run=action.run_id, **_platforms(action))

    async def _delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        try:
            await self._kube.delete(kind, namespace, name, uid=uid)
        except (NotFound, Conflict):
            return
        _LOG.info("deleted", kind=kind.kind, child=name)

    def _event(self, build: MultiArchBuild, event: EventRecord, name: str) -> dict[str, Any]:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": build.metadata.namespace},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": event.type,
            "reason": event.reason,
            "note": _cut(event.message, EVENT_NOTE),
            "action": event.reason,
            "regarding": {
                "apiVersion": BUILDS.api_version,
                "kind": BUILDS.kind,
                "namespace": build.metadata.namespace,
                "name": build.metadata.name,
                "uid": build.metadata.uid,
            },
            "reportingController": "multiarch.build/operator",
            "reportingInstance": self._instance[:128],
        }


def _event_name(build: MultiArchBuild, event: EventRecord) -> str:
    digest = hashlib.sha256(f"{build.metadata.uid}/{event.key}".encode()).hexdigest()[:16]
    return f"{build.metadata.name[:200].rstrip('-.')}.{digest}"


def _cut(text: str, size: int) -> str:
    """Return as much of the text as fits into `size` bytes of UTF-8."""
    if len(text.encode()) <= size:
        return text
    return text.encode()[: size - 3].decode(errors="ignore") + "…"


def _platforms(action: Start) -> Mapping[str, str]:
    return {"platform": ",".join(map(str, action.platforms))} if isinstance(action, StartBuild) else {}
