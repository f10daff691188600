"""Volumes that outlive the pods of builders (cache.volume): which one a builder gets, or why it gets none.

A claim belongs to one build, its platform, and the way that is built: native and emulated builders run on different
nodes, and many volumes can be mounted on one node only. Never do two pods have one at a time. It is a cache: whatever
is wrong with it, the build goes on without, and the claim is deleted, so that the next run gets a new one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import CacheVolumeUse, PlatformStatus, RunStatus

from .actions import DeleteClaim, EnsureClaim, Placement
from .children import Claim, Pod, platform_of
from .context import Context
from .identity import builder_slug, claim_name, digest
from .not_created import child
from .pod_policy import AccessMode
from .policy import Policy
from .rules import cache_volume

RELEASE = timedelta(seconds=30)
"""How long a pod that should be gone may still have the claim: its containers are killed after two seconds, and only
on a node that does not answer is it there for longer."""
PROVISIONING = timedelta(minutes=1)
"""How long a pod waits at least for a node that can mount its volume: making one takes seconds, or tens of them."""
WITHOUT = "novolume"
"""What tells the name of a builder without the volume that is asked for from that of one with it."""
_GIVEN_UP = frozenset({CacheVolumeUse.UNAVAILABLE, CacheVolumeUse.FAILED})
"""For the rest of the run; the claim is deleted."""
_OF_VOLUMES = re.compile(r"volume|storageclass|\bpvc?s?\b|\bpvc?\(s\)|free storage", re.IGNORECASE)
"""What the scheduler says of nodes that can't mount one (pkg/scheduler/framework/plugins/volume*)."""


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """What a build and the policy ask of each claim."""

    size: str
    storage_class: str
    """Empty for the default of the cluster."""
    access_mode: AccessMode
    asked: str
    """Hash of all that."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a builder gets."""

    use: CacheVolumeUse | None = None
    """None where the build asks for none."""
    claim: str = ""
    """Name of the claim; empty where it gets none."""
    actions: tuple[EnsureClaim, ...] = ()
    """What creates it, where there is none."""
    failed: bool = False
    """Whether it can't be said now: the API server did not answer."""
    holders: tuple[Pod, ...] = ()
    """Pods that have the claim, and have to end before."""
    message: str = ""
    """Why the API server did not let it be made."""
    usual: str = ""
    """Name that the claim has unless others have taken it."""

    @property
    def slug(self) -> str:
        """What is in the name of the pod: one that waits has another name than the one that takes its place."""
        if self.use is not None and not self.claim:
            return WITHOUT
        return digest(self.claim)[:6] if self.claim != self.usual else ""


def request(build: MultiArchBuild, policy: Policy) -> VolumeRequest | None:
    """Return what `build` asks for, None where it asks for nothing or the policy does not allow it."""
    volume = build.spec.cache.volume
    if volume is None or any(cache_volume(build, policy)):
        return None
    allowed = policy.cache_volumes_for(build.metadata.namespace)
    storage_class = volume.storage_class_name or allowed.default_storage_class
    # Files have another owner where buildkitd is another user.
    parts = (build.metadata.uid, str(volume.size), storage_class, allowed.access_mode, policy.isolation)
    return VolumeRequest(str(volume.size), storage_class, allowed.access_mode, digest(*parts)[:8])


def grant(
    context: Context, run_id: str, platforms: tuple[Platform, ...], placement: Placement, before: PlatformStatus
) -> Grant:
    """Return what the builder of `platforms` gets that goes to `placement`; `before` is how its platform stands."""
    wanted = request(context.build, context.policy)
    if wanted is None:
        return Grant()
    if before.volume in _GIVEN_UP:
        return Grant(before.volume)  # its claim is deleted, and another would serve no better
    name = claim_name(context.build, wanted.asked, _slug(platforms), placement.slug)
    found = find(context.claims, wanted, platforms, placement.slug)
    if found is not None and (found.deleting or found.lost):
        return Grant(CacheVolumeUse.DELETED)
    if found is not None:
        return _unless_held(context, Grant(CacheVolumeUse.USED, found.name, usual=name))
    made = child(name, context.not_created)
    if made.reason or made.failed:
        words = context.not_created.refused.get(made.name, made.message)
        return Grant(CacheVolumeUse.REFUSED, failed=made.failed, message=words)
    action = EnsureClaim(
        name=made.name,
        run_id=run_id,
        platforms=platforms,
        placement=placement.slug,
        asked=wanted.asked,
        size=wanted.size,
        storage_class=wanted.storage_class,
        access_mode=wanted.access_mode,
    )
    # Somebody may have deleted it while a pod waited with it.
    return _unless_held(context, Grant(CacheVolumeUse.NEW, made.name, (action,), usual=name))


def _slug(platforms: Sequence[Platform]) -> str:
    """Return what names the claim of a builder: one of other platforms has another, and may still be there."""
    together = builder_slug(tuple(platforms))
    return together if len(platforms) == 1 else f"{together}-{digest(*sorted(map(str, platforms)))[:6]}"


def find(
    claims: Iterable[Claim], wanted: VolumeRequest, platforms: tuple[Platform, ...], placement: str
) -> Claim | None:
    """Return the claim that is there for a builder."""
    own = (each for each in claims if each.asked == wanted.asked and each.placement == placement)
    return next((each for each in own if set(each.platforms) == set(platforms)), None)


def _unless_held(context: Context, grant: Grant) -> Grant:
    holders = tuple(pod for pod in context.pods if pod.claim == grant.claim and not _has_ended(pod))
    if any(_is_stuck(pod, context.now) for pod in holders):
        return Grant(CacheVolumeUse.IN_USE)
    return replace(grant, holders=holders)


def _has_ended(pod: Pod) -> bool:
    # The kubelet says so when all containers have ended, and not before.
    return pod.phase in {"Succeeded", "Failed"}


def _is_stuck(pod: Pod, now: datetime) -> bool:
    return pod.deleted_at is not None and now >= pod.deleted_at + RELEASE


def released_at(holders: Sequence[Pod], now: datetime) -> datetime:
    """Return when to look again at who has a claim; the event that one is gone comes before, as a rule."""
    return min((pod.deleted_at + RELEASE if pod.deleted_at else now + _SOON for pod in holders), default=now)


_SOON = timedelta(seconds=2)


def waits_until(context: Context, pod: Pod, dequeued_at: datetime | None, *, fits: bool) -> datetime | None:
    """Return until when `pod` waits for a node that can mount its volume; None where it waits for something else.

    An autoscaler may bring one, as it may bring a native node: that is waited for as long, from `dequeued_at` on where
    it was in somebody's queue before. `fits` says whether there is a node that it could go to without.
    """
    claim = next((each for each in context.claims if each.name == pod.claim), None)
    bound = claim is not None and claim.bound
    if not fits or (_OF_VOLUMES.search(pod.unschedulable) is None and (pod.unschedulable or bound)):
        return None
    run = context.build.status.run
    since = run.started_at if run is not None and run.id == pod.run_id else pod.created_at
    native = context.build.spec.scheduling.native_wait_delta
    return max((dequeued_at or since) + native, (dequeued_at or pod.created_at) + PROVISIONING)


def seen(entry: PlatformStatus, pods: Sequence[Pod]) -> PlatformStatus:
    """Return `entry` with what its pod has, which an operator that was killed has not said, or what it failed for."""
    use, pod = entry.volume, next((each for each in pods if each.name == entry.pod), None)
    if pod is not None:
        use = CacheVolumeUse.USED if pod.handed and pod.claim else pod.volume
    if Reason.CACHE_VOLUME_FAILED in {entry.reason, *(tried.reason for tried in entry.failed_attempts)}:
        use = CacheVolumeUse.FAILED
    return entry if use is entry.volume else entry.model_copy(update={"volume": use})


def deletions(
    build: MultiArchBuild,
    policy: Policy,
    claims: Iterable[Claim],
    builders: Iterable[tuple[Platform, ...]],
    run: RunStatus | None,
) -> Iterator[DeleteClaim]:
    """Yield the claims that go: those that the spec, or the policy, does not ask for any more, and those given up.

    One that a pod still has stays until that ends: Kubernetes sees to it.
    """
    wanted, groups = request(build, policy), {frozenset(platforms) for platforms in builders}
    given_up = {platform_of(entry.platform) for entry in (run.platforms if run else ()) if entry.volume in _GIVEN_UP}
    for claim in claims:
        needed = wanted is not None and claim.asked == wanted.asked and frozenset(claim.platforms) in groups
        if not claim.deleting and not (needed and given_up.isdisjoint(claim.platforms)):
            yield DeleteClaim(claim.name, claim.uid)


def held(pods: Iterable[Pod], claims: Iterable[Claim], deleted: Iterable[DeleteClaim]) -> frozenset[str]:
    """Return the names of the pods that have a claim which goes: as long as they stay it stays, and what it costs."""
    going = {claim.name for claim in claims if claim.deleting} | {action.name for action in deleted}
    return frozenset(pod.name for pod in pods if pod.claim in going)
