"""The builds of a run: one builder per platform, or one for all with strategy Cross."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Built, Failure, Published, Resolved, Source
from multiarchbuild.api.scheduling import Strategy
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import CacheStatus, FailedAttempt, Mode, Phase, PlatformStatus, RunStatus

from .actions import AnnotateSource, StartBuild
from .attempts import with_failure
from .cache import cache_refs
from .children import Pod, Role
from .context import Context, earliest, retry_at
from .identity import builder_name, builder_slug, inputs_name
from .outcome import Going, outcome, refusal
from .placement import Choice, choose, contradiction, wish
from .policy import Policy


@dataclass(frozen=True, slots=True)
class Builder:
    """Platforms that are built together, with their names as spec writes them."""

    platforms: tuple[Platform, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a builder stands after this decision."""

    entry: PlatformStatus
    """For every platform of the builder but for its name."""
    actions: tuple[StartBuild | AnnotateSource, ...] = ()
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
    scheduling, namespace = build.spec.scheduling, build.metadata.namespace
    wishes = (wish(scheduling, each.platforms, each.names, namespace) for each in builders(build.spec))
    return "; ".join(filter(None, (contradiction(wanted, policy) for wanted in wishes)))


def advance(
    context: Context, run: RunStatus, builder: Builder, entry: PlatformStatus, source: Source | None
) -> BuildProgress:
    """Return where `builder` stands; `source` is None while it is being resolved."""
    if entry.phase in {Phase.SUCCEEDED, Phase.FAILED}:
        return BuildProgress(entry)
    pod = context.pod(run.id, Role.BUILD, builder.platforms)
    if entry.reason is Reason.RETRYING and (pod is None or pod.attempt <= entry.attempt):
        return _retry_when_due(context, run, builder, entry, source)
    if pod is None or pod.attempt < entry.attempt:
        if entry.attempt == 0:
            return _start(context, run, builder, source, attempt=1)
        lost = Failure(reason=Reason.BUILDER_LOST, message=f"pod {entry.pod} disappeared before its step ended")
        return _failed(context, entry, lost)
    seen = _seen(entry, pod)
    came = refusal(pod, context.nodes) or outcome(pod, context.now)
    match came:
        case Going(look_again=look_again):
            progress = _going(context, run, builder, seen, pod, source)
            return replace(progress, wake_at=earliest(progress.wake_at, look_again))
        case Built():
            return BuildProgress(_succeeded(context, seen, came))
        case Failure():
            return _failed(context, seen, came)
        case Resolved() | Published():
            wrong = Failure(reason=Reason.STEP_FAILED, message=f"pod {pod.name} left the result of another step")
            return _failed(context, seen, wrong)


def _start(
    context: Context,
    run: RunStatus,
    builder: Builder,
    source: Source | None,
    *,
    attempt: int,
    failed_attempts: tuple[FailedAttempt, ...] = (),
) -> BuildProgress:
    choice = _choose(context, run, builder)
    action = StartBuild(
        name=builder_name(context.build, run.id, builder_slug(builder.platforms), choice.placement.slug, attempt),
        run_id=run.id,
        attempt=attempt,
        inputs=inputs_name(context.build, run.id),
        deadline=context.seconds_left(run.started_at),
        platforms=builder.platforms,
        placement=choice.placement,
        cache=cache_refs(context.build, builder.platforms, context.policy.cache.repository),
        source=source,
    )
    entry = PlatformStatus(
        platform=builder.names[0],
        phase=Phase.PENDING,
        mode=choice.placement.mode,
        reason=choice.reason,
        message=choice.message,
        pod=action.name,
        attempt=attempt,
        failed_attempts=failed_attempts,
    )
    return BuildProgress(entry, actions=(action,), wake_at=choice.wait_until)


def _retry_when_due(
    context: Context, run: RunStatus, builder: Builder, entry: PlatformStatus, source: Source | None
) -> BuildProgress:
    due = retry_at(entry.finished_at or context.now, entry.attempt)
    if context.now < due:
        return BuildProgress(entry, wake_at=due)
    return _start(context, run, builder, source, attempt=entry.attempt + 1, failed_attempts=entry.failed_attempts)


def _going(
    context: Context, run: RunStatus, builder: Builder, entry: PlatformStatus, pod: Pod, source: Source | None
) -> BuildProgress:
    actions: tuple[AnnotateSource, ...] = ()
    if source is not None and source != Source() and not pod.source_annotation:
        actions = (AnnotateSource(pod.name, source),)
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
    actions: tuple[AnnotateSource, ...],
) -> BuildProgress:
    """Return where a builder stands whose pod waits for a node."""
    choice = _choose(context, run, builder)
    if choice.placement.slug != pod.placement:
        # QEMU has its turn, or nodes came and went: a pod that asks for those takes its place, in the same attempt.
        return _start(context, run, builder, source, attempt=entry.attempt, failed_attempts=entry.failed_attempts)
    reason, message = choice.reason, choice.message
    if reason is Reason.PENDING and pod.unschedulable:
        reason, message = Reason.UNSCHEDULABLE, pod.unschedulable
    patience = context.build.spec.scheduling.pending_timeout
    until = pod.created_at + parse_duration(patience) if patience else None
    if until is not None and context.now >= until:
        waited = f"pod {pod.name} got no node within {patience} (scheduling.pendingTimeout)"
        return _failed(context, entry, Failure(reason=Reason.SCHEDULING_TIMED_OUT, message=f"{waited}: {message}"))
    waiting = _update(entry, phase=Phase.PENDING, reason=reason, message=message)
    return BuildProgress(waiting, actions, wake_at=earliest(choice.wait_until, until))


def _choose(context: Context, run: RunStatus, builder: Builder) -> Choice:
    scheduling = context.build.spec.scheduling
    return choose(
        wish(scheduling, builder.platforms, builder.names, context.build.metadata.namespace),
        context.nodes,
        context.policy,
        # One wait for the whole run: a retry does not wait for a native node once more.
        native_deadline=run.started_at + scheduling.native_wait_delta,
        now=context.now,
    )


def _seen(entry: PlatformStatus, pod: Pod) -> PlatformStatus:
    return _update(
        entry,
        mode=Mode(pod.mode),
        node=pod.node,
        pod=pod.name,
        attempt=pod.attempt,
        started_at=pod.step_started_at,
        finished_at=pod.ended.finished_at if pod.ended else None,
    )


def _succeeded(context: Context, entry: PlatformStatus, built: Built) -> PlatformStatus:
    return _update(
        entry,
        phase=Phase.SUCCEEDED,
        reason=Reason.SUCCEEDED,
        message=None,
        log_tail=None,
        finished_at=entry.finished_at or context.now,
        digest=built.digest,
        cache=CacheStatus(hits=built.cache.hits, total=built.cache.total),
    )


def _failed(context: Context, entry: PlatformStatus, failure: Failure) -> BuildProgress:
    finished = entry.finished_at or context.now
    tail = failure.log_tail or None
    if not context.retries(failure, entry.attempt):
        ended = _update(
            entry,
            phase=Phase.FAILED,
            reason=failure.reason,
            message=failure.message,
            log_tail=tail,
            finished_at=finished,
        )
        return BuildProgress(ended)
    due = retry_at(finished, entry.attempt)
    message = f"attempt {entry.attempt} failed: {failure.reason}: {failure.message}; next try at {due:%H:%M:%S} UTC"
    waiting = _update(
        entry,
        phase=Phase.PENDING,
        reason=Reason.RETRYING,
        message=message,
        log_tail=tail,
        finished_at=finished,
        failed_attempts=with_failure(entry.failed_attempts, entry.attempt, failure, finished, entry.node),
    )
    return BuildProgress(waiting, wake_at=due)


def _update(entry: PlatformStatus, **fields: Any) -> PlatformStatus:
    return entry.model_copy(update=fields)


def entries(run: RunStatus, names: Sequence[str]) -> dict[str, PlatformStatus]:
    """Return the entry of each platform of `names`, a fresh one where `run` has none."""
    known = {entry.platform: entry for entry in run.platforms}
    return {name: known.get(name, PlatformStatus(platform=name)) for name in names}
