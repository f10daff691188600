"""The life of a run, from its start to its end: first what its pods have ended with, then what is to do."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from multiarchbuild.api import limits
from multiarchbuild.api.durations import format_duration
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.results import Failure, Published, Resolved, Source
from multiarchbuild.api.status import (
    BuilderUse,
    CacheStatus,
    HistoryEntry,
    ImageStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    StepStatus,
)

from . import attempts, builds, publishing, sources, steps, unchanged
from .actions import Action, EnsureInputs, StartBuild, StartPublish, StartResolve
from .children import Pod, Role, platform_of
from .context import Context, earliest
from .identity import Fingerprint, fingerprint

_WAITING = (
    Reason.NO_BUILDER,
    Reason.UNSCHEDULABLE,
    Reason.QUEUED,
    Reason.RETRYING,
    Reason.WAITING_FOR_NATIVE_NODE,
    Reason.PENDING,
)


_TOLD_IN_LOG = "a builder has found a change: its log says which"
_NOT_COMPARED = "a new pod has built the image, instead of the kept builder that should have compared it"
_OTHER_IMAGE = "another image was published meanwhile"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands after this decision."""

    run: RunStatus
    image: ImageStatus | None = None
    """The image, if this decision saw it published."""
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends before its pods do."""

    result: Result
    reason: Reason
    message: str
    others: Reason | None = None
    """Why the platforms end that go on, where that is another reason."""


def read(context: Context, run: RunStatus) -> RunProgress:
    """Return where `run` stands by what its pods have ended with. Nothing is started, and no clock or wish counts.

    What is published counts even where the run has ended otherwise meanwhile: its tags were moved.
    """
    if run.result is Result.SUCCEEDED:
        return RunProgress(run)
    publish = publishing.read(context, run)
    if publish.result is not None and publish.pod is not None:
        return _published(context, _update(run, publish=publish.step), publish.result, publish.pod)
    if run.result is not None:
        return RunProgress(run)
    wake_at = publish.look_again
    if publish.step != StepStatus():
        run = _update(run, publish=publish.step)
    if not sources.is_resolved(run) and (unchanged.compares(run) or sources.needs_resolving(context.build.spec)):
        resolve = attempts.read(context, run.resolve or StepStatus(), context.pods_of(run.id, Role.RESOLVE), Resolved)
        wake_at = earliest(wake_at, resolve.look_again)
        if resolve.step.attempt:
            run = _update(run, resolve=resolve.step)
        if resolve.result is not None and sources.needs_resolving(context.build.spec):
            run = _resolved(run, resolve.result.source)
        run = _compared(context, run, resolve.result)
    platforms = []
    for entry in run.platforms or builds.entries(run, context.build.spec.platforms).values():
        read_entry, look_again = builds.read(context, run, entry)
        platforms.append(read_entry)
        wake_at = earliest(wake_at, look_again)
    run = _update(run, platforms=tuple(platforms))
    progress = RunProgress(run, wake_at=wake_at)
    return _unless_failed(context, _unchanged(context, progress) if _is_unchanged(run) else progress)


def stop(context: Context, run: RunStatus) -> Stop | None:
    """Return why `run`, which goes on, should not."""
    build = context.build
    if build.metadata.annotations.get(CANCEL_ANNOTATION) == run.id:
        return Stop(Result.CANCELLED, Reason.CANCELLED, f"cancelled by annotation {CANCEL_ANNOTATION}")
    if fingerprint(build.spec) != Fingerprint(run.inputs, run.execution):
        # Another run would have taken its place if one could start: its ConfigMap and its pods are of the old spec.
        remedy = "suspend is true: set it to false to build what it says now"
        by = f"superseded by generation {build.metadata.generation} of the spec"
        message = (
            f"{by}, edited while {remedy if build.spec.suspend else 'no run may start: the condition Ready says why'}"
        )
        return Stop(Result.SUPERSEDED, Reason.SUPERSEDED, message)
    if context.now >= run.started_at + context.timeout:
        late = f"the run took longer than spec.timeout ({format_duration(context.timeout)})"
        if failed := [entry for entry in run.platforms if entry.phase is Phase.FAILED]:
            # It could not succeed any more, however long the others would have had.
            message = f"{_which(failed)[: limits.MESSAGE - 200]}; others were stopped: {late}"
            return Stop(Result.FAILED, failed[0].reason or Reason.STEP_FAILED, message, Reason.TIMED_OUT)
        return Stop(Result.FAILED, Reason.TIMED_OUT, f"{late}: {_standing(run)}")
    return None


def stopped(context: Context, run: RunStatus, why: Stop) -> RunProgress:
    """Return `run` as it ends early."""
    return _ended(context, run, why.result, why.reason, why.message, why.others)


def proceed(context: Context, before: RunProgress) -> RunProgress:
    """Return what is to do for a run that goes on: start what is missing, hand over what is known."""
    waits = _waits_for_comparison(context, before.run)
    progress = _resolve(context, before)
    if not waits:
        progress = _unless_failed(context, _build(context, progress))
    if progress.run.result is None:
        progress = _publish(context, progress)
    run = progress.run
    if run.result is not None:
        return replace(progress, actions=(), wake_at=None)
    actions = progress.actions
    if any(isinstance(action, StartResolve | StartBuild | StartPublish) for action in actions):
        inputs = context.inputs(run.id).name
        if all(existing.name != inputs for existing in context.config_maps):
            actions = (EnsureInputs(name=inputs, run_id=run.id, parents=run.parents), *actions)
    wake_at = earliest(progress.wake_at, run.started_at + context.timeout)
    return replace(progress, run=_described(context, run), actions=actions, wake_at=wake_at)


def _resolve(context: Context, before: RunProgress) -> RunProgress:
    run = before.run
    compares = _waits_for_comparison(context, run)
    if sources.is_resolved(run) or not (compares or sources.needs_resolving(context.build.spec)):
        return before

    def start(name: str, attempt: int) -> StartResolve:
        inputs, deadline = context.inputs(run.id).name, context.seconds_left(run.started_at)
        last = unchanged.last_image(context.build.spec, run) if compares else None
        return StartResolve(
            name=name,
            run_id=run.id,
            attempt=attempt,
            inputs=inputs,
            deadline=deadline,
            artifact=sources.source_of(run.source) if run.source and context.build.spec.source.flux else None,
            paths=context.build.spec.source.paths,
            last=last,
        )

    return _with_step(before, "resolve", steps.proceed(context, run, Role.RESOLVE, run.resolve, start))


def _with_step(before: RunProgress, name: str, step: steps.StepProgress) -> RunProgress:
    return RunProgress(
        _update(before.run, **{name: step.status}),
        actions=(*before.actions, step.action) if step.action else before.actions,
        wake_at=earliest(before.wake_at, step.wake_at),
    )


def _resolved(run: RunStatus, source: Source) -> RunStatus:
    status = sources.status_of(source)
    moved = run.source is not None and sources.differ(run.source, status)
    # Builders that were started early belong to this run and wait for its source: only what was carried over goes.
    own = tuple(
        PlatformStatus(platform=entry.platform) if entry.phase is Phase.SUCCEEDED else entry for entry in run.platforms
    )
    return _update(run, source=status, **({"platforms": own} if moved else {}))


def _waits_for_comparison(context: Context, run: RunStatus) -> bool:
    """Return whether one pod says first if anything has changed: unless builders are kept, which say it sooner."""
    return (
        unchanged.compares(run)
        and not unchanged.has_begun(run)
        and not context.not_created.not_handed
        and ((run.resolve is not None and bool(run.resolve.attempt)) or not builds.all_kept(context, run))
    )


def _compared(context: Context, run: RunStatus, came: Resolved | None) -> RunStatus:
    """Return `run` with what its pod says of the last image; where that is all it does, its failure fails no run."""
    if not unchanged.compares(run) or run.resolve is None:
        return run
    if came is not None:
        # Builders that are kept compare by themselves, and the pod was not asked.
        asked = came.unchanged or came.changed or not unchanged.has_begun(run)
        return unchanged.compared(run, came) if asked else run
    if sources.needs_resolving(context.build.spec):
        return run
    if attempts.has_failed(run.resolve) or attempts.awaits_retry(run.resolve):
        why = f"cannot be checked: {run.resolve.message}"
        return _update(unchanged.compared(run, Failure(reason=Reason.STEP_FAILED, message=why)), resolve=None)
    return run


def _is_unchanged(run: RunStatus) -> bool:
    """Return whether a pod, or all the builders, have found that nothing has changed."""
    by_pod = sources.is_resolved(run) and not unchanged.has_begun(run)
    return unchanged.compares(run) and (by_pod or unchanged.is_unchanged(run))


def _unchanged(context: Context, before: RunProgress) -> RunProgress:
    """Return the run as it ends with the last image; it goes on and builds where status has another by now."""
    run, image = before.run, context.build.status.image
    if image is None or run.comparison is None or image.digest != run.comparison.digest:
        return replace(before, run=unchanged.compared(run, Failure(reason=Reason.STEP_FAILED, message=_OTHER_IMAGE)))
    message = f"nothing has changed since {image.ref} was published"
    platforms = tuple(unchanged.entries(run, image))
    ended = {"result": Result.SUCCEEDED, "reason": Reason.SUCCEEDED, "message": message, "finished_at": context.now}
    return RunProgress(_update(run, platforms=platforms, publish=None, **ended), image=image)


def _build(context: Context, before: RunProgress) -> RunProgress:
    run = before.run
    source = sources.pinned(context.build.spec, run)
    entries = builds.entries(run, context.build.spec.platforms)
    actions, wake_at = list(before.actions), before.wake_at
    for builder in builds.builders(context.build.spec):
        first = entries[builder.names[0]]
        progress = builds.proceed(context, run, builder, first, source)
        if progress.entry != first:
            entries |= {name: progress.entry.model_copy(update={"platform": name}) for name in builder.names}
        actions += progress.actions
        wake_at = earliest(wake_at, progress.wake_at)
    return RunProgress(_update(run, platforms=tuple(entries.values())), actions=tuple(actions), wake_at=wake_at)


def _publish(context: Context, before: RunProgress) -> RunProgress:
    step = publishing.proceed(context, before.run)
    return RunProgress(
        _update(before.run, publish=step.status),
        actions=(*before.actions, *step.actions),
        wake_at=earliest(before.wake_at, step.wake_at),
    )


def _unless_failed(context: Context, progress: RunProgress) -> RunProgress:
    """Return `progress`, or the end of the run where it can't succeed any more and nothing of it goes on."""
    run = progress.run
    if run.resolve is not None and attempts.has_failed(run.resolve):
        return _failed(context, run, run.resolve.reason, run.resolve.message)
    failed = [entry for entry in run.platforms if entry.phase is Phase.FAILED]
    if failed and all(entry.phase in {Phase.SUCCEEDED, Phase.FAILED} for entry in run.platforms):
        return _failed(context, run, failed[0].reason, _which(failed))
    # Before all is built the builders go on: the next run has only to publish.
    if run.publish is not None and attempts.has_failed(run.publish) and publishing.is_built(run):
        return _failed(context, run, run.publish.reason, run.publish.message)
    return progress


def _failed(context: Context, run: RunStatus, reason: Reason | None, message: str | None) -> RunProgress:
    return _ended(context, run, Result.FAILED, reason or Reason.STEP_FAILED, message or "")


def _published(context: Context, run: RunStatus, published: Published, pod: Pod) -> RunProgress:
    """Return `run`, which has succeeded: its publish step was handed what every platform has come to."""
    image = publishing.image_of(context, published, pod)
    bases = dict.fromkeys(base for entry in run.platforms for base in entry.bases)
    if context.build.status.image and any(entry.pushed == context.build.status.image.digest for entry in run.platforms):
        # What a builder has found unchanged is made from what it was made from.
        bases |= dict.fromkeys(context.build.status.image.bases)
    image = image.model_copy(update={"bases": tuple(bases)[: limits.BASES]})
    images = {each.platform: each.digest for each in published.platforms}
    pushed = publishing.handed_to(pod)
    platforms = tuple(
        entry.model_copy(
            update={
                "phase": Phase.SUCCEEDED,
                "reason": Reason.SUCCEEDED,
                "message": None,
                "log_tail": None,
                "bases": (),
                "pushed": entry.pushed or pushed.get(entry.platform),
                "digest": images.get(str(platform_of(entry.platform)), entry.digest),
            }
        )
        for entry in run.platforms
    )
    run = _update(run, platforms=platforms)
    if run.comparison is not None and run.comparison.changed is None:
        run = unchanged.compared(run, Failure(reason=Reason.STEP_FAILED, message=_why_built(run)))
    names = ", ".join(entry.platform for entry in platforms)
    message = f"published {image.ref} for {names}{_in_spite_of(run)}"
    finished = (pod.ended.finished_at if pod.ended else None) or context.now
    finished = min(max(finished, run.started_at), context.now)
    ended = {"result": Result.SUCCEEDED, "reason": Reason.SUCCEEDED, "message": message, "finished_at": finished}
    return RunProgress(_update(run, **ended), image=image)


def _why_built(run: RunStatus) -> str:
    """Return why `run` has published, whose builders were to say whether anything has changed."""
    digest = run.comparison.digest if run.comparison else None
    built = [entry for entry in run.platforms if entry.pushed != digest]
    if not built or any(entry.builder is BuilderUse.KEPT for entry in built):
        return _TOLD_IN_LOG
    return f"{_NOT_COMPARED} ({', '.join(f'{entry.platform}: {entry.builder}' for entry in built)})"


def _ended(
    context: Context, run: RunStatus, result: Result, reason: Reason, message: str, others: Reason | None = None
) -> RunProgress:
    platforms = tuple(_stopped(entry, others or reason) for entry in run.platforms)
    ended = {"result": result, "reason": reason, "message": message, "finished_at": context.now}
    # A publish pod that nothing was handed to has done nothing, unless it has failed.
    publish = run.publish if publishing.is_built(run) or (run.publish and run.publish.finished_at) else None
    return RunProgress(_update(run, platforms=platforms, publish=publish, **ended))


def _stopped(entry: PlatformStatus, reason: Reason) -> PlatformStatus:
    """Return where a platform stands whose run ends for `reason`: what has not ended by itself never will."""
    if entry.phase in {Phase.SUCCEEDED, Phase.FAILED}:
        return entry
    return entry.model_copy(update={"phase": Phase.STOPPED, "reason": reason, "message": None})


def history_entry(
    run: RunStatus, result: Result, reason: Reason, image: ImageStatus | None, now: datetime
) -> HistoryEntry:
    """Return the line of history for `run`, which ended or is superseded now; `image` is what it has published."""
    return HistoryEntry(
        id=run.id,
        result=result,
        reason=reason,
        digest=image.digest if image else None,
        record=image.record if image else None,
        cache=_cache(run),
        commit=run.source.commit if run.source else None,
        started_at=run.started_at,
        finished_at=run.finished_at or now,
    )


def _cache(run: RunStatus) -> CacheStatus | None:
    known = [entry.cache for entry in run.platforms if entry.cache is not None]
    hits, total = sum(each.hits for each in known), sum(each.total for each in known)
    return CacheStatus(hits=hits, total=total) if known else None


def _which(failed: list[PlatformStatus]) -> str:
    """Return what failed, each message once with the platforms that it is about."""
    by_message: dict[str, list[str]] = {}
    for entry in failed:
        by_message.setdefault(entry.message or "", []).append(entry.platform)
    return "; ".join(f"{', '.join(platforms)}: {message}" for message, platforms in by_message.items())[:2048]


def _described(context: Context, run: RunStatus) -> RunStatus:
    """Return `run` with what is to be said of it as a whole."""
    if sources.pinned(context.build.spec, run) is None or _waits_for_comparison(context, run):
        step, going = run.resolve, Reason.RESOLVING
    elif publishing.is_built(run):
        step, going = run.publish, Reason.PUBLISHING
    else:
        return _update(run, reason=_reason(run), message=_standing(run))
    return _update(run, reason=(step.reason if step else None) or going, message=step.message if step else None)


def _reason(run: RunStatus) -> Reason:
    """Return Building while anything is built, else what has to be waited for, the gravest first."""
    reasons = {entry.reason for entry in run.platforms if entry.phase is Phase.PENDING}
    if any(entry.phase is Phase.RUNNING for entry in run.platforms):
        return Reason.BUILDING
    if reasons == {Reason.POD_REJECTED}:
        return Reason.POD_REJECTED
    return next((reason for reason in _WAITING if reason in reasons), Reason.BUILDING)


def _in_spite_of(run: RunStatus) -> str:
    """Return what went wrong on the way to success, in short; the entries of the platforms have it in full."""
    tries = [(entry.platform, entry.failed_attempts) for entry in run.platforms]
    tries += [("publish", run.publish.failed_attempts)] if run.publish else []
    told = [f"{name} after {', '.join(each.reason for each in failed)}" for name, failed in tries if failed]
    return f" ({'; '.join(told)})" if told else ""


def _standing(run: RunStatus) -> str:
    done = sum(entry.phase is Phase.SUCCEEDED for entry in run.platforms)
    waiting = "; ".join(
        f"{entry.platform} {entry.reason or entry.phase}: {entry.message}"
        if entry.message
        else f"{entry.platform} {entry.phase}"
        for entry in run.platforms
        if entry.phase is not Phase.SUCCEEDED
    )
    return f"{done}/{len(run.platforms)} platforms built" + (f"; {waiting}" if waiting else "")


def _update(run: RunStatus, **fields: Any) -> RunStatus:
    return run.model_copy(update=fields)
