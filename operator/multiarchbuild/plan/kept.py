"""Kept builders: which ones stay after a run, and which one serves the next.

A kept builder is a pod like others that waits for another request when it has answered. Nothing depends on it: where it
is gone, or does not begin in time, or is lost while it builds, a pod is created as if it had never been. So it is with
the pod of the publish step, which stays as long as a builder of its build does.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Failure
from multiarchbuild.api.spec import CacheMode
from multiarchbuild.api.status import BuilderUse, Phase, PlatformStatus, RunStatus

from .actions import Action, HandOver, Keep, MarkIdle, Resize, StartBuild, StartPublish
from .attempts import awaits_retry
from .children import Node, Pod, Role, platform_of
from .not_created import ASK_AGAIN
from .outcome import Going, outcome
from .policy import KeptBuilders, Policy
from .resize import resizes, written

Template = Callable[[StartBuild | StartPublish, MultiArchBuild, Policy], str]
"""Returns a hash of all that a pod has in common with those that could take its place."""

BEGIN = timedelta(seconds=3)
"""How long a kept builder has to begin. It takes half a second; times are whole seconds, so that 2 s pass at least."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""Label of pods that wait for a share of a queue (Kueue)."""
_LACKS = re.compile(r"Insufficient (cpu|memory|ephemeral-storage)\b")
"""What the scheduler says of nodes; builders that wait hold no GPU and the like that others could have."""
_SLACK = timedelta(seconds=30)
_MAX_LIFE = 2**31 - 1
"""The API server takes no activeDeadlineSeconds beyond a 32-bit integer."""


def keep(build: MultiArchBuild, policy: Policy) -> Keep | None:
    """Return how long the pods of `build` stay after a run, None where they do not."""
    limits, own = policy.kept_builders, build.spec.scheduling.keep_builder
    idle = min(parse_duration(own or _usual(build, policy)), parse_duration(limits.max))
    if not idle or build.spec.cache.mode is CacheMode.DISABLED:
        # What a builder keeps is a cache.
        return None
    life = parse_duration(limits.max_age) + policy.timeout(build.spec.timeout) + _SLACK
    return Keep(idle=int(idle.total_seconds()), life=min(int(life.total_seconds()), _MAX_LIFE))


def _usual(build: MultiArchBuild, policy: Policy) -> str:
    """Return how long the builders of a build stay that does not say it.

    Those that Kueue admits hold their share of its queue until they end, whatever they request meanwhile.
    """
    labels = {**policy.pod_metadata.labels, **build.spec.scheduling.pod_metadata.labels}
    return "0s" if QUEUE_LABEL in labels else policy.kept_builders.default or "0s"


def find(
    wanted: StartBuild | StartPublish,
    pods: Sequence[Pod],
    template: str,
    *,
    not_handed: frozenset[str],
    nodes: Sequence[Node],
    policy: Policy,
    now: datetime,
) -> tuple[Pod | None, BuilderUse]:
    """Return the kept pod that `wanted` is handed to, or why there is none. The first reason that holds counts."""
    role, platforms = _asked_of(wanted)
    own = [pod for pod in pods if _exists(pod) and pod.role is role and set(pod.platforms) == platforms]
    if not own:
        return None, BuilderUse.NONE_KEPT
    pod = max(own, key=lambda each: (each.idle, each.created_at, each.name))
    if pod.name in not_handed:
        return None, BuilderUse.REFUSED
    if pod.template != template:
        return None, BuilderUse.TEMPLATE_CHANGED
    if not pod.idle:
        return None, BuilderUse.BUSY
    return (pod, BuilderUse.KEPT) if (unfit := _unfit(pod, nodes, policy, now)) is None else (None, unfit)


def hand_over(pod: Pod, wanted: StartBuild | StartPublish, now: datetime) -> HandOver:
    """Return the request for a pod that is idle."""
    number = (pod.handed.number if pod.handed else 1) + 1
    return HandOver(pod=pod.name, uid=pod.uid, after=pod.request, number=number, at=now, wanted=wanted)


def given_up(pod: Pod, now: datetime, *, begun: bool) -> BuilderUse | None:
    """Return why what was handed to `pod` is not waited for any more, None while it is; `begun`: status says it has.

    What the build itself is to blame for is its result, in whichever pod. A full disk or an old Secret is of this one.
    """
    if pod.handed is None:
        return None
    came = outcome(pod, now)
    if isinstance(came, Failure) and (came.reason.retryable or came.reason.may_be_of_kept_builder):
        return BuilderUse.LOST
    return BuilderUse.NO_ANSWER if begins_until(pod, begun=begun) is not None and now >= pod.handed.at + BEGIN else None


def begins_until(pod: Pod, *, begun: bool) -> datetime | None:
    """Return until when a pod that was handed something has to begin with it; None once it has, as status says."""
    if pod.handed is None or pod.taken or pod.concluded or begun:
        return None
    return pod.handed.at + BEGIN


def staying(
    pods: Sequence[Pod],
    run: RunStatus | None,
    build: MultiArchBuild,
    *,
    nodes: Sequence[Node],
    policy: Policy,
    now: datetime,
) -> frozenset[str]:
    """Return the names of the pods that stay, idle or about to be, as nothing speaks against it.

    A builder goes when its platform has another one, or none any more; the pod of the publish step when another has
    published, when no builder stays, or when one is refused: it is worth less than they are.
    """
    if keep(build, policy) is None:
        return frozenset()
    # The spec may write a platform in another way: linux/arm64/v8 is linux/arm64. A pod that is refused is to take the
    # place of one that can't be used: that may be what the quota has no room for.
    used = {
        platform_of(entry.platform): "" if _gives_way(entry) else entry.pod for entry in (run.platforms if run else ())
    }

    publish = run.publish.pod if run and run.publish else None

    def replaced(pod: Pod) -> bool:
        if pod.role is Role.PUBLISH:
            return publish not in (None, pod.name)
        return bool(used) and any(used.get(each, "") not in (None, pod.name) for each in pod.platforms)

    asked = bool(build.spec.scheduling.keep_builder)
    fit = (
        pod for pod in pods if _exists(pod) and (asked or not pod.queued) and _unfit(pod, nodes, policy, now) is None
    )
    stay = [pod for pod in fit if not replaced(pod)]
    goes_on = run is not None and run.result is None
    # What a quota has no room for may be what that pod holds.
    refused = goes_on and run is not None and any(entry.reason is Reason.POD_REJECTED for entry in run.platforms)
    # Those that still build when their run has ended go with it.
    builders = not refused and (goes_on or any(pod.role is Role.BUILD and pod.concluded for pod in stay))
    return frozenset(pod.name for pod in stay if pod.role is Role.BUILD or builders)


def _gives_way(entry: PlatformStatus) -> bool:
    """Return whether a builder that stays is in the way of one that is not there yet: of its room, or of its volume."""
    return entry.reason is Reason.POD_REJECTED or (entry.reason is Reason.PENDING and not entry.attempt)


def marks(pods: Sequence[Pod], run: RunStatus | None, stay: frozenset[str], *, now: datetime) -> Iterator[MarkIdle]:
    """Yield what tells pods that status has their results, so that they wait for the next request."""
    ends = {Phase.SUCCEEDED, Phase.FAILED}
    done = {entry.pod for entry in run.platforms if entry.phase in ends} if run else set()
    if run and run.publish and run.publish.finished_at is not None and not awaits_retry(run.publish):
        done.add(run.publish.pod)
    for pod in pods:
        if pod.name in stay & done and pod.answer and not pod.idle and not isinstance(outcome(pod, now), Going):
            yield MarkIdle(pod.name, pod.uid, pod.request, "" if pod.full_requests else written(pod.requests))


def requests(
    pods: Sequence[Pod], stay: frozenset[str], marked: Sequence[MarkIdle], begun: Sequence[Action], policy: Policy
) -> Iterator[Resize]:
    """Yield what lowers the requests of builders that wait, and raises those of builders that build again.

    It follows on `marked`, and on what is started: a build waits for no resize.
    """
    handed = {action.pod for action in begun if isinstance(action, HandOver)}
    waiting = {pod.name for pod in pods if pod.idle and pod.name in stay} | {mark.pod for mark in marked}
    going = [pod for pod in pods if _exists(pod) and (not pod.idle or pod.name in stay | handed)]
    yield from resizes(going, policy.kept_builders.idle, waiting=waiting, building=handed)


def raised_again_at(changes: Sequence[Resize], begun: Sequence[Action], now: datetime) -> datetime | None:
    """Return when requests are raised again of builders that build with what they had while they waited.

    A quota or a webhook may have refused it before.
    """
    handed = {action.pod for action in begun if isinstance(action, HandOver)}
    return now + ASK_AGAIN if any(not each.lowers and each.pod not in handed for each in changes) else None


def surplus(
    waiting: Sequence[Pod],
    limits: KeptBuilders,
    *,
    short: bool,
    near: Collection[str] = (),
    full: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Pod, ...]:
    """Return which of the builders that wait for work have to go, the least recently used first.

    `short` says that some pod of a build finds no room on any node: then one gives way, and the next one if that did
    not suffice: of the namespaces in `near`, where such pods are, before others. `full` says how many pods a quota has
    refused in a namespace: as many give way there.
    """
    builders = (pod for pod in waiting if _exists(pod) and pod.role is Role.BUILD and pod.idle)
    by_use = sorted(builders, key=_last_used, reverse=True)
    room, stay = dict.fromkeys({pod.namespace for pod in by_use}, limits.per_namespace), list[Pod]()
    for pod in by_use:
        if room[pod.namespace] > 0 and len(stay) < limits.per_cluster:
            room[pod.namespace] -= 1
            stay.append(pod)
    leaving = any(_leaves(pod) for pod in waiting)
    if short and not leaving and len(stay) == len(by_use):
        oldest = next((pod for pod in reversed(stay) if pod.namespace in near), stay[-1] if stay else None)
        stay = [pod for pod in stay if pod is not oldest]
    for namespace, refused in full.items():
        going = sum(pod.namespace == namespace and _leaves(pod) for pod in waiting)
        own = [pod for pod in reversed(stay) if pod.namespace == namespace][: max(refused - going, 0)]
        stay = [pod for pod in stay if pod not in own]
    names = {pod.uid for pod in stay}
    return tuple(pod for pod in reversed(by_use) if pod.uid not in names)


def finds_no_room(pod: Pod) -> bool:
    """Return whether the scheduler says of `pod` that nodes lack what it requests: what a waiting builder may hold."""
    return not pod.deleting and not pod.node and _LACKS.search(pod.unschedulable) is not None


def _leaves(pod: Pod) -> bool:
    return pod.deleting and bool(pod.template) and pod.role is Role.BUILD


def _asked_of(wanted: StartBuild | StartPublish) -> tuple[Role, set[Platform]]:
    return (Role.BUILD, set(wanted.platforms)) if isinstance(wanted, StartBuild) else (Role.PUBLISH, set())


def _last_used(pod: Pod) -> tuple[datetime, str]:
    return pod.step_started_at or pod.created_at, pod.uid


def _exists(pod: Pod) -> bool:
    ended = pod.deleting or pod.ended is not None or pod.phase in {"Succeeded", "Failed"} or bool(pod.disrupted)
    return bool(pod.template) and pod.role in {Role.BUILD, Role.PUBLISH} and not ended


def _unfit(pod: Pod, nodes: Sequence[Node], policy: Policy, now: datetime) -> BuilderUse | None:
    limits = policy.kept_builders
    builds = pod.handed.number if pod.handed else 1
    if builds >= limits.max_runs or now >= pod.created_at + parse_duration(limits.max_age):
        return BuilderUse.WORN_OUT
    if not any(node.name == pod.node and node.ready and node.schedulable and not node.disk_pressure for node in nodes):
        return BuilderUse.NODE_UNUSABLE
    return BuilderUse.RESTARTED if pod.daemon_restarts else None
