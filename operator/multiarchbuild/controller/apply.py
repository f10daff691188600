"""Performs what was decided, one idempotent request for each action."""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from multiarchbuild.api.mounts import IDLE_ANNOTATION, REQUEST_ANNOTATION
from multiarchbuild.api.requests import MAX_BYTES
from multiarchbuild.api.resource import READ_ANNOTATIONS, MultiArchBuild
from multiarchbuild.plan.actions import (
    Action,
    AnnotateBuilt,
    AnnotateSource,
    DeleteClaim,
    DeleteConfigMap,
    DeletePod,
    Deletion,
    EnsureClaim,
    EnsureInputs,
    EventRecord,
    HandOver,
    KeepRecord,
    MarkIdle,
    Resize,
    Start,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.children import RUN_LABEL, is_child
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.resize import applies

from .answers import add_nonce
from .kube import (
    BUILDS,
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    PODS,
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Kind,
    Kube,
    KubeError,
    NotFound,
    Transient,
)
from .logs import logger
from .refused import Refusals
from .views import Views
from .watch import Key

_LOG = logger(__name__)

Render = Callable[[Start | HandOver | KeepRecord, MultiArchBuild, Policy], dict[str, Any]]
"""Returns the manifest that an action asks for, or the metadata that it sets."""

EVENT_NOTE: Final = 1024
"""Bytes of an Event's note (events.k8s.io/v1)."""
_REMEMBERED: Final = 10_000
_Metadata = Mapping[str, Mapping[str, str]]
_EXCEEDED: Final = "exceeded quota"
"""Words of the admission plugin ResourceQuota."""
_MAY_COME: Final = ("error looking up service account", "no PriorityClass with name", "failed quota")
"""Words of admission plugins that miss an object: a ServiceAccount, which a new namespace has not at once either, a
PriorityClass, and the LimitRange that gives pods what a ResourceQuota asks for."""


class Rejected(Exception):  # noqa: N818 - what the API server did
    """The API server refused to create a child, and would again: the message is its own."""

    def __init__(self, name: str, message: str, *, awaited: bool = False) -> None:
        """`name`: of the child; `awaited`: what it lacks may come by itself, and whoever asks again soon may get it."""
        super().__init__(message)
        self.name, self.awaited = name, awaited


class NameTaken(Exception):  # noqa: N818
    """An object has the name of a child and is not of the build."""


class NotHanded(Exception):  # noqa: N818
    """A kept builder, whose name is the message, does not get what was to be handed to it: a pod has to do it."""


class Gone(Exception):  # noqa: N818
    """The build or its namespace is being deleted: there is nothing left to do."""


class Applier:
    """Performs actions and posts Events for builds."""

    def __init__(
        self, kube: Kube, render: Render, policy: Policy, views: Views, instance: str, clock: Callable[[], float]
    ) -> None:
        """`instance`: name of this operator process, for Events; `views` learn what is written; `clock`: seconds."""
        self._views = views
        self._kube, self._render, self._policy, self._instance = kube, render, policy, instance
        self._refusals = Refusals(clock)
        views.on_quota_has_room = self._refusals.has_room
        self._posted: dict[str, None] = {}
        self._keeps_requests: dict[str, None] = {}
        """Uids of pods whose requests the API server did not lower."""
        self._resize_refused = False

    async def perform(self, build: MultiArchBuild, action: Action) -> None:
        """Perform one action; once more is the same as once.

        Raises:
            Rejected: A child was refused by admission: quota, Pod Security, a webhook, validation. Whoever asks again
                too soon gets the same answer, not from the API server.
            NameTaken: An object that the build does not control has the name.
            NotHanded: A kept builder can't be asked any more.
            Gone: The namespace is being deleted.
            Conflict: What is to be deleted has changed: to be looked at again.
            KubeError: Anything else, to be tried again.
        """
        namespace = build.metadata.namespace
        match action:
            case EnsureInputs() | EnsureClaim() | KeepRecord() | StartResolve() | StartBuild() | StartPublish():
                await self._create(_kind_of(action), build, action)
            case HandOver():
                await self._hand_over(build, action)
            case MarkIdle():
                await self._mark_idle(namespace, action)
            case Resize():
                await self._resize(build, action)
            case AnnotateSource() | AnnotateBuilt():
                await self._annotate(namespace, action)
            case DeletePod() | DeleteConfigMap() | DeleteClaim():
                await self._delete(_kind_of(action), build, action.name, action.uid)

    async def _hand_over(self, build: MultiArchBuild, action: HandOver) -> None:
        changes = self._render(action, build, self._policy)
        if len(changes["annotations"][REQUEST_ANNOTATION].encode()) > MAX_BYTES:
            raise NotHanded(action.pod)
        if error := await self._set(build.metadata.namespace, action, changes, idle=action.after):
            _LOG.info("the kept builder can't be asked", pod=action.pod, error=str(error))
            raise NotHanded(action.pod) from error
        wanted = action.wanted
        _LOG.info("handed to a kept pod", pod=action.pod, run=wanted.run_id, **_platforms(wanted))

    async def _mark_idle(self, namespace: str, action: MarkIdle) -> None:
        """Without it the builder ends: a pity, and no more."""
        if error := await self._set(namespace, action, {"annotations": action.annotations}, idle=""):
            _LOG.info("the builder is not kept", pod=action.pod, error=str(error))

    async def _annotate(self, namespace: str, action: AnnotateSource | AnnotateBuilt) -> None:
        """A pod that is kept is of another run by and by: what is for this one must not reach that one."""
        changes, own = {"annotations": action.annotations}, {"labels": {RUN_LABEL: action.run_id}}
        try:
            changed = await self._kube.set_metadata(PODS, namespace, action.pod, changes, uid=action.uid, has=own)
        except NotFound:
            _LOG.info("pod is gone, nothing is handed to it", pod=action.pod)
        else:
            self._views.stored(PODS, changed)

    async def _set(
        self, namespace: str, action: HandOver | MarkIdle, changes: _Metadata, *, idle: str
    ) -> KubeError | None:
        """Change a builder's labels and annotations as long as it is as idle as is thought; return what is against."""
        has = {"annotations": {IDLE_ANNOTATION: idle}}
        try:
            changed = await self._kube.set_metadata(PODS, namespace, action.pod, changes, uid=action.uid, has=has)
        except (NotFound, Invalid, Conflict, Forbidden) as error:
            return error
        self._views.stored(PODS, changed)
        return None

    async def _resize(self, build: MultiArchBuild, action: Resize) -> None:
        """Nothing depends on it: a builder that keeps its requests costs more, one that gets none back is slower."""
        namespace, known = build.metadata.namespace, self._views.pods.get(build.metadata.uid, action.pod)
        refused = action.uid in self._keeps_requests if action.lowers else self._refusals.standing(action) is not None
        if refused or not applies(action, known):
            return
        try:
            pod = await self._kube.resize(namespace, action.pod, uid=action.uid, requests=action.requests)
        except (NotFound, Conflict):
            return
        except (Invalid, Forbidden) as error:
            self._resize_was_refused(Key(namespace, build.metadata.name), action, str(error))
        else:
            self._refusals.created(action)
            self._views.stored(PODS, pod)

    def _resize_was_refused(self, build: Key, action: Resize, answer: str) -> None:
        """Note a refusal: what is not lowered once never is; what is not raised is asked for again while it builds."""
        if not action.lowers:
            full = _EXCEEDED in answer
            self._refusals.refused(action, answer, build.namespace if full else "")
            if full:
                self._views.quota_exceeded(build)
            _LOG.info("a kept builder builds with what it requested while it waited", pod=action.pod, error=answer)
            return
        remember(self._keeps_requests, action.uid)
        if not self._resize_refused:
            self._resize_refused = True
            _LOG.warning("kept builders keep their requests while they wait", pod=action.pod, error=answer)

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
        remember(self._posted, name)  # only a short cut; the API server knows them all

    async def _create(self, kind: Kind, build: MultiArchBuild, action: Start | KeepRecord) -> None:
        meta = build.metadata
        what = meta.uid, action.name, meta.generation, *map(meta.annotations.get, READ_ANNOTATIONS)
        key = Key(meta.namespace, meta.name)
        if (answer := self._refusals.standing(what)) is not None:
            if kind is PODS and _EXCEEDED in answer:
                self._views.quota_exceeded(key, again=True)
            raise Rejected(action.name, answer)
        manifest = self._render(action, build, self._policy)
        if kind is PODS:
            add_nonce(manifest)
        try:
            created = await self._kube.create(kind, meta.namespace, manifest)
        except AlreadyExists:
            await self._check_owner(kind, build, action.name)
            return
        except NotFound as error:
            raise Gone(str(error)) from error
        except (Forbidden, Invalid) as error:
            raise self._refusal(kind, key, what, action.name, error) from error
        self._refusals.created(what)
        self._views.created(kind, {**manifest, "metadata": created["metadata"]})
        _LOG.info("created", kind=kind.kind, child=action.name, run=action.run_id, **_platforms(action))

    def _refusal(
        self, kind: Kind, build: Key, what: Hashable, name: str, error: Forbidden | Invalid
    ) -> Rejected | Gone:
        """Note that the API server refused to create the child `name`; return what that means."""
        answer = str(error)
        if isinstance(error, Forbidden) and error.namespace_terminating:
            return Gone(answer)
        if any(words in answer for words in _MAY_COME):
            first = not self._refusals.is_awaited(what)
            if self._refusals.may_come(what):
                if first:
                    _LOG.info("waits for what may have been applied with the build", child=name, error=answer)
                return Rejected(name, answer, awaited=True)
        full = kind is PODS and _EXCEEDED in answer
        if full:
            self._views.quota_exceeded(build)
        return Rejected(name, self._refusals.refused(what, answer, build.namespace if full else ""))

    async def _check_owner(self, kind: Kind, build: MultiArchBuild, name: str) -> None:
        """Raise `NameTaken` unless the object is the build's own, which a look before a crash has created.

        Raises `Transient` if it is gone again.
        """
        selector = f"metadata.name={name}"
        found = await self._kube.list(kind, build.metadata.namespace, field_selector=selector, metadata_only=True)
        if not found:
            raise Transient(f"{kind.kind} {name} existed a moment ago, and does not any more")
        if any(not is_child(manifest, build.metadata.uid) for manifest in found):
            _LOG.warning("the name is used by an object that does not belong to the build", kind=kind.kind, child=name)
            raise NameTaken(name)

    async def _delete(self, kind: Kind, build: MultiArchBuild, name: str, uid: str) -> None:
        try:
            # A conflict need not mean that the name is another object's by now: it is looked at again.
            await self._kube.delete(kind, build.metadata.namespace, name, uid=uid)
        except NotFound:
            return
        self._views.deleted(kind, build.metadata.uid, name, uid)
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


def _kind_of(action: Start | KeepRecord | Deletion) -> Kind:
    """Return the kind of what `action` creates or deletes."""
    match action:
        case EnsureInputs() | KeepRecord() | DeleteConfigMap():
            return CONFIG_MAPS
        case EnsureClaim() | DeleteClaim():
            return CLAIMS
        case StartResolve() | StartBuild() | StartPublish() | DeletePod():
            return PODS


def remember(known: dict[str, None], name: str) -> None:
    """Add `name` to `known`, of which the oldest goes when there are too many."""
    known[name] = None
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]


def _event_name(build: MultiArchBuild, event: EventRecord) -> str:
    digest = hashlib.sha256(f"{build.metadata.uid}/{event.key}".encode()).hexdigest()[:16]
    return f"{build.metadata.name[:200].rstrip('-.')}.{digest}"


def _cut(text: str, size: int) -> str:
    """Return as much of the text as fits into `size` bytes of UTF-8."""
    if len(text.encode()) <= size:
        return text
    return text.encode()[: size - 3].decode(errors="ignore") + "…"


def _platforms(action: Start | KeepRecord) -> Mapping[str, str]:
    if not isinstance(action, StartBuild | KeepRecord):
        return {}
    return {"platform": ",".join(map(str, action.platforms))}
