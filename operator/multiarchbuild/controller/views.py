"""What there is now of pods, ConfigMaps and nodes, kept from watches and from the answers to our own requests.

A look at a build costs no request. A view may be a moment behind the API server; what we wrote ourselves is in it at
once. That is harmless: children have predictable names, so that a create finds what exists already; deletions name the
uid, and a status is written upon the resourceVersion that was looked at. A stale view may cost a look, never a wrong
act.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from multiarchbuild.plan.children import (
    TEMPLATE_ANNOTATION,
    Claim,
    ConfigMap,
    Node,
    Pod,
    Role,
    claim_from,
    config_map_from,
    is_child,
    node_from,
    pod_from,
)
from multiarchbuild.plan.decide import Children

from .changes import DELETED, Owner, owner_of
from .kube import CLAIMS, PODS, Kind
from .seen import version_of
from .watch import Key

TOGETHER_SECONDS: Final = 0.5
"""How long a look waits for what else may happen, where nothing waits for the look."""
SETTLED_SECONDS: Final = 5.0
"""Within how long the end of a step is looked at whose log has told its success: mostly with something else."""
_DELETED: Final = 4096
"""Deleted objects that are remembered: the answer to a create may come after the event of the deletion."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An object as it was at some version."""

    uid: str
    version: int
    value: T


class OwnedView(Generic[T]):
    """Objects that are controlled by builds, by the uid of the build and their own name."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._owned: dict[str, dict[str, Seen[T]]] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def of(self, owner: str) -> tuple[T, ...]:
        """Return what the build with this uid has, by name."""
        owned = self._owned.get(owner, {})
        return tuple(owned[name].value for name in sorted(owned))

    def all(self) -> Iterator[tuple[str, T]]:
        """Yield every object with the uid of its owner."""
        return ((owner, seen.value) for owner, owned in self._owned.items() for seen in owned.values())

    def get(self, owner: str, name: str) -> T | None:
        """Return one object."""
        known = self._owned.get(owner, {}).get(name)
        return known.value if known is not None else None

    def store(self, owner: str, name: str, seen: Seen[T]) -> bool:
        """Take an object in; return False where what is known is as new, or it has been deleted."""
        known = self._owned.get(owner, {}).get(name)
        if seen.uid in self._deleted or (known is not None and known.version >= seen.version):
            return False
        self._owned.setdefault(owner, {})[name] = seen
        return True

    def amend(self, owner: str, name: str, uid: str, change: Callable[[T], T]) -> None:
        """Change what is known of an object, at the version at which it is known."""
        known = self._owned.get(owner, {}).get(name)
        if known is not None and known.uid == uid:
            self._owned[owner][name] = replace(known, value=change(known.value))

    def remove(self, owner: str, name: str, uid: str) -> bool:
        """Forget an object; return whether it was known."""
        self._deleted[uid] = None
        if len(self._deleted) > _DELETED:
            self._deleted.popitem(last=False)
        owned = self._owned.get(owner, {})
        if name not in owned or owned[name].uid != uid:
            return False
        del owned[name]
        if not owned:
            del self._owned[owner]
        return True


class NodeView:
    """The nodes of the cluster."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._nodes: dict[str, Seen[Node]] = {}
        self._all: tuple[Node, ...] | None = None

    @property
    def all(self) -> tuple[Node, ...]:
        """All nodes, by name."""
        if self._all is None:
            self._all = tuple(self._nodes[name].value for name in sorted(self._nodes))
        return self._all

    def store(self, seen: Seen[Node]) -> bool:
        """Take a node in; return whether it shows something new."""
        name = seen.value.name
        known = self._nodes.get(name)
        if known is not None and known.version >= seen.version:
            return False
        self._nodes[name] = seen
        if known is not None and known.value == seen.value:
            return False
        self._all = None
        return True

    def remove(self, name: str) -> bool:
        """Forget a node; return whether it was known."""
        self._all = None
        return self._nodes.pop(name, None) is not None


class Views:
    """See the module. All calls come from one event loop."""

    def __init__(
        self, wake: Callable[[Key, float], None], has_succeeded: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Know nothing yet.

        Args:
            wake: Called for a build, with the seconds within which to look at it.
            has_succeeded: Whether the step of the pod with this uid has told so, for which there was a look.
        """
        self._wake, self._has_succeeded = wake, has_succeeded
        self.on_room_changed: Callable[[], None] = lambda: None
        """Called when a builder waits for work, a pod finds no room, or one is gone."""
        self.pods: OwnedView[Pod] = OwnedView()
        self.config_maps: OwnedView[ConfigMap] = OwnedView()
        self.claims: OwnedView[Claim] = OwnedView()
        self.nodes = NodeView()
        self.full: Counter[str] = Counter()
        """How many pods the quota of a namespace has refused since builders there gave way."""
        self.on_quota_has_room: Callable[[str], None] = lambda _: None
        """Called with its namespace when a builder is gone that was kept there, before builds are woken for it."""
        self._refused: dict[str, dict[Key, None]] = {}
        """Builds of which a quota has refused a pod, by their namespaces."""

    def children_of(self, owner: str) -> Children:
        """Return the pods, ConfigMaps and claims of the build with this uid."""
        return Children(pods=self.pods.of(owner), config_maps=self.config_maps.of(owner), claims=self.claims.of(owner))

    # What watches show

    def pod_seen(self, kind: str, manifest: Mapping[str, Any]) -> None:
        """Take in what the watch shows of a pod, with the type of the event."""
        meta = manifest["metadata"]
        owner = owner_of(meta)
        if owner is None:
            return
        key = Key(meta["namespace"], owner.name)
        if kind == DELETED:
            if self.pods.remove(owner.uid, meta["name"], meta["uid"]):
                self._wake(key, 0.0)
                self.on_room_changed()
                if (meta.get("annotations") or {}).get(TEMPLATE_ANNOTATION):
                    self._quota_has_room(key.namespace)
            return
        if not is_child(manifest, owner.uid):
            return
        known, seen = self.pods.get(owner.uid, meta["name"]), _seen(manifest, pod_from)
        if self.pods.store(owner.uid, meta["name"], seen):
            before = known if known is not None and known.uid == seen.uid else None
            within = patience(before, seen.value)
            if within == 0.0 and _ends_well(before, seen.value) and self._has_succeeded(seen.uid):
                within = SETTLED_SECONDS
            if within is not None:
                self._wake(key, within)
            if seen.value.idle or seen.value.unschedulable:
                self.on_room_changed()

    def config_map_seen(self, kind: str, manifest: Mapping[str, Any]) -> None:
        """Likewise, of a ConfigMap. Nothing follows from one that came: the operator made it."""
        if (owner := self._owner(kind, manifest, self.config_maps)) is not None:
            self.config_maps.store(owner.uid, manifest["metadata"]["name"], _seen(manifest, config_map_from))

    def claim_seen(self, kind: str, manifest: Mapping[str, Any]) -> None:
        """Likewise, of a PersistentVolumeClaim. That it has got its volume is seen by the pod that waits for it."""
        if (owner := self._owner(kind, manifest, self.claims)) is None:
            return
        meta, seen = manifest["metadata"], _seen(manifest, claim_from)
        known, now = self.claims.get(owner.uid, meta["name"]), seen.value
        stored = self.claims.store(owner.uid, meta["name"], seen)
        # One that is deleted or lost serves no builder.
        if stored and known is not None and (known.deleting, known.lost) != (now.deleting, now.lost):
            self._wake(Key(meta["namespace"], owner.name), TOGETHER_SECONDS)

    def _owner(self, kind: str, manifest: Mapping[str, Any], view: OwnedView[Any]) -> Owner | None:
        """Return the build whose child is there; one that is gone leaves `view`, and its build is woken."""
        meta = manifest["metadata"]
        owner = owner_of(meta)
        if owner is None:
            return None
        if kind == DELETED:
            if view.remove(owner.uid, meta["name"], meta["uid"]):
                self._wake(Key(meta["namespace"], owner.name), 0.0)
            return None
        return owner if is_child(manifest, owner.uid) else None

    def node_seen(self, kind: str, manifest: Mapping[str, Any]) -> bool:
        """Likewise, of a node; return whether placement could be another."""
        if kind == DELETED:
            return self.nodes.remove(manifest["metadata"]["name"])
        return self.nodes.store(_seen(manifest, node_from))

    # What we did ourselves

    def created(self, kind: Kind, manifest: Mapping[str, Any]) -> None:
        """Take in a child as it was asked for, with the metadata that the API server answered with.

        What admission has made of it the watch shows, at the same version: that replaces this.
        """
        version = int(manifest["metadata"]["resourceVersion"]) - 1
        self.stored(kind, {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}})

    def stored(self, kind: Kind, manifest: Mapping[str, Any]) -> None:
        """Take in a child as the API server answered with it."""
        meta = manifest["metadata"]
        owner = owner_of(meta)
        assert owner is not None, "every child names its build"
        if kind is PODS:
            self.pods.store(owner.uid, meta["name"], seen := _seen(manifest, pod_from))
            if seen.value.idle:
                self.on_room_changed()
        elif kind is CLAIMS:
            self.claims.store(owner.uid, meta["name"], _seen(manifest, claim_from))
        else:
            self.config_maps.store(owner.uid, meta["name"], _seen(manifest, config_map_from))

    def quota_exceeded(self, build: Key, *, again: bool = False) -> None:
        """Take in that a quota has no room for a pod of `build`: a builder that waits in its namespace gives way.

        `again`: it was not asked again, as it has said so a moment ago.
        """
        self._refused.setdefault(build.namespace, {})[build] = None
        if not again:
            self.full[build.namespace] += 1
            self.on_room_changed()

    def _quota_has_room(self, namespace: str) -> None:
        if builds := self._refused.pop(namespace, None):
            self.on_quota_has_room(namespace)
            for build in builds:
                self._wake(build, 0.0)

    def deleted(self, kind: Kind, owner: str, name: str, uid: str) -> None:
        """Take in that a child was deleted: a ConfigMap is gone, a pod takes its time to end, and so does its claim."""
        if kind is PODS:
            self.pods.amend(owner, name, uid, lambda pod: replace(pod, deleting=True))
        elif kind is CLAIMS:
            self.claims.amend(owner, name, uid, lambda claim: replace(claim, deleting=True))
        else:
            self.config_maps.remove(owner, name, uid)

    def not_deleted(self, owner: str, name: str, uid: str) -> None:
        """Take back that a pod was deleted."""
        self.pods.amend(owner, name, uid, lambda pod: replace(pod, deleting=False))


def patience(before: Pod | None, now: Pod) -> float | None:
    """Return the seconds within which to look at what has changed of a pod; None where no decision depends on it.

    What it has ended with is looked at at once. That it got a node, or that a container waits or has started, is told
    together with what comes within half a second: both builders of a run in one write.
    """
    if before == now:
        return None
    if before is not None and before.ended and replace(before, phase=now.phase, ended=now.ended) == now:
        return None
    if before is not None and _only_starts(before, now):
        return None
    urgent = now.ended is not None or now.phase == "Failed" or now.deleting or bool(now.disrupted)
    return 0.0 if urgent else TOGETHER_SECONDS


def _only_starts(before: Pod, now: Pod) -> bool:
    """Return whether a pod has come nearer to its start, and nothing is said of that or follows from it.

    Of builders status tells it. When a step has started, its log is followed from the next look on: that of a publish
    step which is handed over later what was built comes then anyway.
    """
    seen = replace(before, acknowledged=now.acknowledged)
    if not now.user_namespace:
        # Nothing depends on the sandbox but how long it may be missing, which is looked at when it has been.
        seen = replace(seen, sandboxed=now.sandboxed)
    if seen == now:
        return True
    if now.role is Role.BUILD or _is_told(before) or _is_told(now) or now.phase not in {"Pending", "Running"}:
        return False
    seen = replace(seen, node=now.node, scheduled_at=now.scheduled_at)
    if now.role is Role.PUBLISH and not now.built_annotation:
        seen = replace(seen, phase=now.phase, step_started_at=now.step_started_at)
    return seen == now


def _is_told(pod: Pod) -> bool:
    """Return whether status says what `pod` waits for."""
    return bool(pod.gates or pod.unschedulable or pod.waiting_reason)


def _ends_well(before: Pod | None, now: Pod) -> bool:
    """Return whether a pod has ended with success, and nothing else has happened to it that nobody has looked at."""
    if before is None or before.ended is not None or now.ended is None or now.ended.exit_code:
        return False
    return not (now.deleting or now.disrupted or now.phase == "Failed")


def _seen(manifest: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], T]) -> Seen[T]:
    return Seen(manifest["metadata"]["uid"], version_of(manifest), parse(manifest))
