"""The builds of a run: one builder per platform, or one for all with strategy Cross."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Built, Failure, Source
from multiarchbuild.api.scheduling import Strategy
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import (
    BuilderUse,
    CacheStatus,
    CacheVolumeUse,
    Mode,
    Phase,
    PlatformStatus,
    RunStatus,
)

from . import attempts, claims, kept
from .actions import AnnotateSource, EnsureClaim, HandOver, Placement, StartBuild
from .cache import cache_refs
from .children import Pod, Role, platform_of
from .claims import Grant
from .context import Context, earliest
from .identity import builder_name, builder_slug
from .not_created import Child
from .placement import Choice, PlacementRequest, choose, contradiction, placement_request
from .policy import Policy
from .unchanged import last_image

_HANDED_OVER = "handed to the builder that was kept from the last run"


@dataclass(frozen=True, slots=True)
class Builder:
    """Platforms that are built together, with their names as spec writes them."""

    platforms: tuple[Platform, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a builder stands after this decision."""

    entry: PlatformStatus
    """For every platform of the builder but for its name, unless they are built."""
    actions: tuple[EnsureClaim | StartBuild | HandOver | AnnotateSource, ...] = ()
    wake_at: datetime | None = None


def builders(spec: Spec) -> tuple[Builder, ...]:
    """Return who builds what: with Cross one builder for all platforms but those with a strategy of their own."""
    own = {override.platform for override in spec.scheduling.overrides if override.strategy}
    together = (
        [name for name in spec.platforms if name not in own] if spec.scheduling.strategy is Strategy.CROSS else []
    )
    groups = [together] if together else []
    groups += [[name] for name in spec.platforms if name not in together]
    return tuple(Builder(tuple(map(Platform.parse, names)), tuple(names)) for names in groups)


def contradictions(build: MultiArchBuild, policy: Policy) -> str:
    """Return what no nodes could ever make true of what `build` asks of them, or nothing."""
    requests = (_request(build, builder, policy) for builder in builders(build.spec))
    return "; ".join(filter(None, (contradiction(each, policy) for each in requests)))


def read(context: Context, run: RunStatus, entry: PlatformStatus) -> tuple[PlatformStatus, datetime | None]:
    """Return how the build of a platform stands by its pods, and when to look again if nothing happens before."""
    if entry.phase is Phase.SUCCEEDED and entry.builder_output is not None:
        return entry, None
    # What its builder has pushed is not stored where the definition is of a version that did not have that.
    platform = platform_of(entry.platform)
    pods = [pod for pod in context.pods_of(run.id, Role.BUILD) if platform in pod.platforms]
    entry, pods = _without_given_up(context, entry, pods)
    reading = attempts.read(context, entry, pods, Built)
    step = claims.seen(_with_builder(reading.step, pods), pods)
    if (built := reading.result) is None:
        return step, reading.look_again
    digest = next((image.digest for image in built.images if image.platform == str(platform)), None)
    cache = CacheStatus(hits=built.cache.hits, total=built.cache.total)
    fields = {"pushed": built.digest, "digest": digest, "cache": cache, "record": built.record}
    return _update(step, **fields, warnings=built.warnings, bases=built.bases), None


def _without_given_up(context: Context, entry: PlatformStatus, pods: Sequence[Pod]) -> tuple[PlatformStatus, list[Pod]]:
    """Return `entry` and its pods without kept builders that are given up: the same attempt goes on in a new pod."""
    reasons = {pod.name: kept.given_up(pod, context.now, begun=_has_begun(pod, entry)) for pod in pods}
    counting = [pod for pod in pods if reasons[pod.name] is None]
    going = entry.builder is BuilderUse.KEPT and entry.phase in {Phase.PENDING, Phase.RUNNING}
    if going and not attempts.awaits_retry(entry) and all(pod.name != entry.pod for pod in counting):
        why = reasons.get(entry.pod or "") or BuilderUse.LOST
        return PlatformStatus(platform=entry.platform, builder=why), counting
    return entry, counting


def _has_begun(pod: Pod, entry: PlatformStatus) -> bool:
    return (entry.pod, entry.phase) == (pod.name, Phase.RUNNING)


def _with_builder(entry: PlatformStatus, pods: Sequence[Pod]) -> PlatformStatus:
    """Return `entry` with what its pod is, which an operator that was killed has not said."""
    handed = any(pod.name == entry.pod and pod.handed is not None for pod in pods)
    if handed == (entry.builder is BuilderUse.KEPT):
        return entry
    return _update(entry, builder=BuilderUse.KEPT if handed else BuilderUse.LOST)


def proceed(
    context: Context, run: RunStatus, builder: Builder, entry: PlatformStatus, source: Source | None
) -> BuildProgress:
    """Return what is to do for `builder`, which stands as `entry` says; `source` is None while it is being resolved."""
    if entry.phase in {Phase.SUCCEEDED, Phase.FAILED}:
        return BuildProgress(entry)
    due = attempts.next_due(context, entry)
    if due is None:
        pod = context.pod_named(entry.pod)
        return _going(context, run, builder, entry, pod, source) if pod is not None else BuildProgress(entry)
    if context.now < due:
        return BuildProgress(entry, wake_at=due)
    if source is None and _source_is_queued(context, run):
        # A builder that is let go first would hold the room that it waits for.
        return BuildProgress(entry)
    return _start(context, run, builder, entry, source, entry.attempt + 1)


def _source_is_queued(context: Context, run: RunStatus) -> bool:
    """Return whether the pod that pins the source waits in somebody's queue, or will."""
    return _queues_all(context) or any(pod.gates for pod in context.pods_of(run.id, Role.RESOLVE))


def _queues_all(context: Context) -> bool:
    """Return whether the policy puts all pods into a queue, that which pins the source as well."""
    return kept.QUEUE_LABEL in context.policy.pod_metadata.labels


def all_kept(context: Context, run: RunStatus) -> bool:
    """Return whether every builder of `run`, which has not started any, can be one that is kept."""
    return all(_find(context, run, builder) for builder in builders(context.build.spec))


def _find(context: Context, run: RunStatus, builder: Builder) -> bool:
    placement, before = _choose(context, run, builder).placement, PlatformStatus(platform=builder.names[0])
    name = builder_name(context.build, run.id, builder_slug(builder.platforms), placement.slug, 1)
    grant = claims.grant(context, run.id, builder.platforms, placement, before)
    action = _action(context, run, builder, Child(name), placement, None, 1, grant)
    return _kept(context, before, action)[0] is not None


def _action(
    context: Context,
    run: RunStatus,
    builder: Builder,
    child: Child,
    placement: Placement,
    source: Source | None,
    attempt: int,
    grant: Grant,
) -> StartBuild:
    return StartBuild(
        name=child.name,
        run_id=run.id,
        attempt=attempt,
        inputs=context.inputs(run.id).name,
        deadline=context.seconds_left(run.started_at),
        until=run.started_at + context.timeout,
        platforms=builder.platforms,
        placement=placement,
        cache=cache_refs(context.build, builder.platforms, context.policy.cache.repository),
        source=source,
        keep=kept.keep(context.build, context.policy) if context.template is not None else None,
        parents=run.parents,
        claim=grant.claim,
        volume=grant.use,
    )


def _start(
    context: Context,
    run: RunStatus,
    builder: Builder,
    before: PlatformStatus,
    source: Source | None,
    attempt: int,
    choice: Choice | None = None,
) -> BuildProgress:
    if choice is None:
        # The source may have been in the queue for longer than a native node is waited for.
        choice = _choose(context, run, builder, context.now if attempt == 1 and _queues_all(context) else None)
    grant = claims.grant(context, run.id, builder.platforms, choice.placement, before)
    slug, way = builder_slug(builder.platforms), "-".join(filter(None, (choice.placement.slug, grant.slug)))
    child = context.pod_to_create(run.id, builder_name(context.build, run.id, slug, way, attempt))
    if child.reason:
        waits = _update(before, phase=Phase.PENDING, reason=child.reason, message=child.message)
        return BuildProgress(waits, wake_at=context.now + child.ask_after)
    if child.failed or grant.failed:
        return BuildProgress(before)
    action = _action(context, run, builder, child, choice.placement, source, attempt, grant)
    pod, why = _kept(context, before, action)
    if pod is not None:
        return _hand_over(context, run, builder, before, action, pod)
    if grant.holders:
        return _waits_for_volume(context, before, action, grant.holders, why)
    entry = PlatformStatus(
        platform=builder.names[0],
        phase=Phase.PENDING,
        mode=choice.placement.mode,
        reason=choice.reason,
        message=grant.message or choice.message,
        pod=action.name,
        attempt=attempt,
        builder=why,
        volume=grant.use,
        failed_attempts=before.failed_attempts,
    )
    return BuildProgress(entry, actions=(*grant.actions, action), wake_at=choice.wait_until)


def _waits_for_volume(
    context: Context, before: PlatformStatus, action: StartBuild, holders: Sequence[Pod], why: BuilderUse | None
) -> BuildProgress:
    """Return where a builder stands whose volume another pod has, which ends: two never have it at a time."""
    message = f"waiting until pod {holders[0].name} has ended, which has the volume of the cache"
    waits: dict[str, Any] = {"phase": Phase.PENDING, "message": message}
    if not before.attempt:
        # A kept builder whose place another takes goes.
        waits |= {"reason": Reason.PENDING, "mode": action.placement.mode, "builder": why}
    return BuildProgress(_update(before, **waits), wake_at=claims.released_at(holders, context.now))


def _kept(context: Context, before: PlatformStatus, action: StartBuild) -> tuple[Pod | None, BuilderUse | None]:
    """Return the kept builder for the first try of a platform, or why there is none."""
    if action.keep is None or context.template is None:
        return None, None
    if before.builder is not None or action.attempt > 1:
        return None, before.builder if before.builder is not BuilderUse.KEPT else BuilderUse.LOST
    template = context.template(action, context.build, context.policy)
    return kept.find(
        action,
        context.pods,
        template,
        not_handed=context.not_created.not_handed,
        nodes=context.nodes,
        policy=context.policy,
        now=context.now,
    )


def _hand_over(
    context: Context, run: RunStatus, builder: Builder, before: PlatformStatus, action: StartBuild, pod: Pod
) -> BuildProgress:
    handed = replace(kept.hand_over(pod, action, context.now), last=last_image(context.build.spec, run))
    entry = PlatformStatus(
        platform=builder.names[0],
        phase=Phase.PENDING,
        mode=pod.mode,
        reason=Reason.PENDING,
        message=_HANDED_OVER,
        node=pod.node,
        pod=pod.name,
        attempt=action.attempt,
        builder=BuilderUse.KEPT,
        volume=CacheVolumeUse.USED if pod.claim else action.volume,
        started_at=context.now,
        failed_attempts=before.failed_attempts,
    )
    return BuildProgress(entry, actions=(handed,), wake_at=context.now + kept.BEGIN)


def _going(
    context: Context, run: RunStatus, builder: Builder, entry: PlatformStatus, pod: Pod, source: Source | None
) -> BuildProgress:
    actions: tuple[AnnotateSource, ...] = ()
    if source is not None and source != Source() and not pod.source_annotation:
        actions = (AnnotateSource(pod.name, pod.uid, run.id, source),)
    if (begins_until := kept.begins_until(pod, begun=_has_begun(pod, entry))) is not None:
        waiting = _update(entry, phase=Phase.PENDING, reason=Reason.PENDING, message=_HANDED_OVER)
        return BuildProgress(waiting, actions, wake_at=begins_until)
    if pod.step_started_at is not None:
        running = _update(entry, phase=Phase.RUNNING, reason=Reason.BUILDING, message=None)
        return BuildProgress(running, actions)
    if pod.node is None:
        return _without_node(context, run, builder, entry, pod, source, actions)
    message = f"{pod.waiting_reason}: {pod.waiting_message}" if pod.waiting_reason else "starting the builder"
    return BuildProgress(_update(entry, phase=Phase.PENDING, reason=Reason.PENDING, message=message), actions)


def _without_node(
    context: Context,
    run: RunStatus,
    builder: Builder,
    entry: PlatformStatus,
    pod: Pod,
    source: Source | None,
    actions: tuple[EnsureClaim | AnnotateSource, ...],
) -> BuildProgress:
    """Return where a builder stands whose pod waits for a node."""
    if pod.gates:
        # In somebody's queue: another pod would go to its end.
        return BuildProgress(_update(entry, phase=Phase.PENDING, reason=Reason.QUEUED, message=queued(pod)), actions)
    if entry.reason is Reason.QUEUED:
        # No scheduler and no autoscaler has looked at it before: what waits for them begins to wait now.
        entry = _update(entry, dequeued_at=context.now)
    choice = _choose(context, run, builder, _waits_since(context, entry, pod))
    if choice.placement.slug != pod.placement:
        # QEMU has its turn, or nodes came and went: a pod that asks for those takes its place, in the same attempt.
        return _in_its_place(context, run, builder, entry, source, actions, choice)
    volume_until = None
    if pod.claim:
        volume_until = claims.waits_until(context, pod, entry.dequeued_at, fits=choice.reason is Reason.PENDING)
        if volume_until is not None and context.now >= volume_until:
            without = _update(entry, volume=CacheVolumeUse.UNAVAILABLE)
            return _in_its_place(context, run, builder, without, source, actions, choice)
        grant = claims.grant(context, run.id, builder.platforms, choice.placement, entry)
        if not grant.failed and grant.claim != pod.claim:
            return _in_its_place(context, run, builder, entry, source, actions, choice)
        actions = (*actions, *grant.actions)  # somebody has deleted it before it was used
    reason, message = choice.reason, choice.message
    if entry.volume is CacheVolumeUse.REFUSED and entry.reason is reason:
        message = entry.message or message  # why it has none
    if reason is Reason.PENDING and pod.unschedulable:
        reason, message = Reason.UNSCHEDULABLE, pod.unschedulable
    patience = context.build.spec.scheduling.pending_timeout
    until = (entry.dequeued_at or pod.created_at) + parse_duration(patience) if patience else None
    if until is not None and context.now >= until:
        waited = f"pod {pod.name} got no node within {patience} (scheduling.pendingTimeout)"
        failure = Failure(reason=Reason.SCHEDULING_TIMED_OUT, message=f"{waited}: {message}")
        failed = attempts.failed(context, entry, failure)
        return BuildProgress(failed, wake_at=attempts.next_due(context, failed))
    waiting = _update(entry, phase=Phase.PENDING, reason=reason, message=message)
    return BuildProgress(waiting, actions, wake_at=earliest(choice.wait_until, until, volume_until))


def _waits_since(context: Context, entry: PlatformStatus, pod: Pod) -> datetime | None:
    """Return since when `pod` waits for a native node, where that is not since its run has begun."""
    if pod.mode is not Mode.NATIVE:
        # QEMU is for when no native node has come. Whoever asks for that has waited already.
        return None
    return entry.dequeued_at or (pod.created_at if pod.attempt == 1 and _queues_all(context) else None)


def _in_its_place(
    context: Context,
    run: RunStatus,
    builder: Builder,
    entry: PlatformStatus,
    source: Source | None,
    actions: tuple[EnsureClaim | AnnotateSource, ...],
    choice: Choice,
) -> BuildProgress:
    """Return where a builder stands whose pod has no node and is to give way to another, in the same attempt.

    Where that one is refused, this one may still get a node: `actions` are for it.
    """
    moved = _start(context, run, builder, entry, source, entry.attempt, choice)
    return moved if moved.actions else replace(moved, actions=actions)


def queued(pod: Pod) -> str:
    """Return what a pod with scheduling gates waits for."""
    return f"pod {pod.name} is held back by {', '.join(pod.gates)} (schedulingGates)"


def _request(build: MultiArchBuild, builder: Builder, policy: Policy) -> PlacementRequest:
    namespace = build.metadata.namespace
    forced = policy.builder_nodes(namespace)
    return placement_request(
        build.spec.scheduling,
        builder.platforms,
        builder.names,
        namespace,
        forced,
        app_armor=policy.rootless.takes_app_armor,
    )


def _choose(context: Context, run: RunStatus, builder: Builder, dequeued_at: datetime | None = None) -> Choice:
    began = max(run.started_at, dequeued_at or run.started_at)
    return choose(
        _request(context.build, builder, context.policy),
        context.nodes,
        context.policy,
        # One wait for the whole run: a retry does not wait for a native node once more.
        native_deadline=began + context.build.spec.scheduling.native_wait_delta,
        now=context.now,
    )


def _update(entry: PlatformStatus, **fields: Any) -> PlatformStatus:
    return entry.model_copy(update=fields)


def entries(run: RunStatus, names: Sequence[str]) -> dict[str, PlatformStatus]:
    """Return the entry of each platform of `names`, a fresh one where `run` has none."""
    known = {entry.platform: entry for entry in run.platforms}
    return {name: known.get(name, PlatformStatus(platform=name)) for name in names}
