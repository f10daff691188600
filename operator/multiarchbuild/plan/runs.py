"""The life of a run: how it advances from its start to its end."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from multiarchbuild.api.durations import format_duration
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.results import Published, Pushed, PushedImage, Resolved, Source
from multiarchbuild.api.status import (
    HistoryEntry,
    ImagePlatform,
    ImageStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceStatus,
    StepStatus,
)

from . import builds, sources, steps
from .actions import Action, AnnotateBuilt, EnsureInputs, StartPublish, StartResolve
from .children import Role
from .context import Context, earliest
from .identity import Fingerprint, fingerprint, inputs_name, step_name
from .tags import expand

_WAITING = (
    Reason.NO_BUILDER,
    Reason.UNSCHEDULABLE,
    Reason.RETRYING,
    Reason.WAITING_FOR_NATIVE_NODE,
    Reason.PENDING,
)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands after this decision."""

    run: RunStatus
    image: ImageStatus | None = None
    """The image, if this decision saw it published."""
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


def advance(context: Context, run: RunStatus) -> RunProgress:
    """Return where `run`, which has not ended, stands."""
    build = context.build
    if build.metadata.annotations.get(CANCEL_ANNOTATION) == run.id:
        return _ended(context, run, Result.CANCELLED, Reason.CANCELLED, f"cancelled by annotation {CANCEL_ANNOTATION}")
    if fingerprint(build.spec) != Fingerprint(run.inputs, run.execution):
        # Another run would have taken its place if one could start: its ConfigMap and its pods are of the old spec.
        remedy = ": set it to false to build what it says now" if build.spec.suspend else ""
        message = f"spec was edited while {'suspend is true' if build.spec.suspend else 'no run may start'}{remedy}"
        return _ended(context, run, Result.SUPERSEDED, Reason.SUPERSEDED, message)
    deadline = run.started_at + context.timeout
    if context.now >= deadline:
        message = f"the run took longer than spec.timeout ({format_duration(context.timeout)}): {_standing(run)}"
        return _ended(context, run, Result.FAILED, Reason.TIMED_OUT, message)
    progress = _resolve(context, run)
    if progress.run.result is None:
        progress = _build(context, progress)
    if progress.run.result is None and _is_nearly_built(context, progress.run):
        progress = _publish(context, progress)
    if progress.run.result is not None:
        return replace(progress, wake_at=None)
    inputs = EnsureInputs(name=inputs_name(build, run.id), run_id=run.id)
    actions = (inputs, *progress.actions) if progress.actions else ()
    return replace(progress, actions=actions, wake_at=earliest(progress.wake_at, deadline))


def _resolve(context: Context, run: RunStatus) -> RunProgress:
    if not sources.needs_resolving(context.build.spec) or sources.is_resolved(run):
        return RunProgress(run)

    def start(attempt: int) -> StartResolve:
        return StartResolve(
            name=step_name(context.build, run.id, Role.RESOLVE, attempt),
            run_id=run.id,
            attempt=attempt,
            inputs=inputs_name(context.build, run.id),
            deadline=context.seconds_left(run.started_at),
        )

    step = steps.advance(context, run, Role.RESOLVE, run.resolve or StepStatus(), start)
    run = _update(run, resolve=step.status)
    if step.failure is not None:
        return _ended(context, run, Result.FAILED, step.failure.reason, step.failure.message)
    if isinstance(step.result, Resolved):
        run = _resolved(run, step.result.source)
    reason, message = (step.status.reason or Reason.RESOLVING), step.status.message
    return RunProgress(
        _update(run, reason=reason, message=message),
        actions=(step.action,) if step.action else (),
        wake_at=step.wake_at,
    )


def _resolved(run: RunStatus, source: Source) -> RunStatus:
    status = sources.status_of(source)
    moved = run.source is not None and sources.differ(run.source, status)
    # Builders that were started early belong to this run and wait for its source: only what was carried over goes.
    own = tuple(entry for entry in run.platforms if entry.phase is not Phase.SUCCEEDED)
    return _update(run, source=status, **({"platforms": own} if moved else {}))


def _build(context: Context, before: RunProgress) -> RunProgress:
    run = before.run
    source = sources.pinned(context.build.spec, run)
    entries = builds.entries(run, context.build.spec.platforms)
    actions, wake_at = list(before.actions), before.wake_at
    for builder in builds.builders(context.build.spec):
        progress = builds.advance(context, run, builder, entries[builder.names[0]], source)
        entries |= {name: progress.entry.model_copy(update={"platform": name}) for name in builder.names}
        actions += progress.actions
        wake_at = earliest(wake_at, progress.wake_at)
    run = _update(run, platforms=tuple(entries.values()))
    failed = [entry for entry in run.platforms if entry.phase is Phase.FAILED]
    if failed and all(entry.phase in {Phase.SUCCEEDED, Phase.FAILED} for entry in run.platforms):
        first = failed[0]
        return _ended(context, run, Result.FAILED, first.reason or Reason.STEP_FAILED, _which(failed))
    if source is not None:
        run = _update(run, reason=_reason(run), message=_standing(run))
    return RunProgress(run, actions=tuple(actions), wake_at=wake_at)


def _is_built(run: RunStatus) -> bool:
    return all(entry.phase is Phase.SUCCEEDED for entry in run.platforms)


def _is_nearly_built(context: Context, run: RunStatus) -> bool:
    """Return whether the publish pod may start: some platform is built, and all others are being built.

    It waits as long as the slowest platform is behind the fastest, and not for the length of a build.
    """
    phases = {entry.phase for entry in run.platforms}
    ends = Phase.SUCCEEDED in phases and phases <= {Phase.SUCCEEDED, Phase.RUNNING}
    return (ends or run.publish is not None) and sources.pinned(context.build.spec, run) is not None


def _publish(context: Context, before: RunProgress) -> RunProgress:
    run, spec = before.run, context.build.spec
    tags = expand(spec.output.tags, run.source or SourceStatus(), run.started_at, run.id)
    built = Pushed(images=tuple(map(_pushed, run.platforms))) if _is_built(run) else None

    def start(attempt: int) -> StartPublish:
        return StartPublish(
            name=step_name(context.build, run.id, Role.PUBLISH, attempt),
            run_id=run.id,
            attempt=attempt,
            inputs=inputs_name(context.build, run.id),
            deadline=context.seconds_left(run.started_at),
            tags=tags,
            built=built,
        )

    step = steps.advance(context, run, Role.PUBLISH, run.publish or StepStatus(), start)
    run = _update(run, publish=step.status)
    if step.failure is not None and built is not None:
        # Before that the builders go on: the next run has only to publish.
        return _ended(context, run, Result.FAILED, step.failure.reason, step.failure.message)
    if isinstance(step.result, Published):
        image = _image(context, step.result, tags)
        names = ", ".join(spec.platforms)
        message = f"published {image.ref} for {names}{_in_spite_of(run)}"
        ended = _ended(context, run, Result.SUCCEEDED, Reason.SUCCEEDED, message)
        return replace(ended, image=image)
    actions = (*before.actions, step.action) if step.action else before.actions
    if built is not None:
        run = _update(run, reason=step.status.reason or Reason.PUBLISHING, message=step.status.message)
        pod = context.pod(run.id, Role.PUBLISH)
        if pod is not None and pod.name == step.status.pod and not pod.built_annotation:
            actions = (*actions, AnnotateBuilt(pod.name, built))
    return RunProgress(run, actions=actions, wake_at=earliest(before.wake_at, step.wake_at))


def _pushed(entry: PlatformStatus) -> PushedImage:
    assert entry.digest is not None, "a platform has succeeded with what its builder pushed"
    return PushedImage(platform=entry.platform, digest=entry.digest)


def _image(context: Context, published: Published, tags: tuple[str, ...]) -> ImageStatus:
    return ImageStatus(
        ref=f"{context.build.spec.output.image}@{published.digest}",
        digest=published.digest,
        tags=tags,
        platforms=tuple(
            ImagePlatform(platform=image.platform, digest=image.digest, size=image.size)
            for image in published.platforms
        ),
        size=sum(image.size for image in published.platforms),
        signature=published.signature,
    )


def _ended(context: Context, run: RunStatus, result: Result, reason: Reason, message: str) -> RunProgress:
    platforms = tuple(_stopped(entry, reason) for entry in run.platforms)
    ended = {"result": result, "reason": reason, "message": message, "finished_at": context.now}
    # A publish pod that nothing was handed to has done nothing.
    publish = run.publish if _is_built(run) else None
    return RunProgress(_update(run, platforms=platforms, publish=publish, **ended))


def _stopped(entry: PlatformStatus, reason: Reason) -> PlatformStatus:
    """Return where a platform stands whose run ends for `reason`: what has not ended by itself never will."""
    if entry.phase in {Phase.SUCCEEDED, Phase.FAILED}:
        return entry
    return entry.model_copy(update={"phase": Phase.STOPPED, "reason": reason, "message": None})


def history_entry(run: RunStatus, result: Result, reason: Reason, digest: str | None, now: datetime) -> HistoryEntry:
    """Return the line of history for `run`, which ended or is superseded now."""
    return HistoryEntry(
        id=run.id,
        result=result,
        reason=reason,
        digest=digest,
        commit=run.source.commit if run.source else None,
        started_at=run.started_at,
        finished_at=run.finished_at or now,
    )


def _which(failed: list[PlatformStatus]) -> str:
    """Return what failed, each message once with the platforms that it is about."""
    by_message: dict[str, list[str]] = {}
    for entry in failed:
        by_message.setdefault(entry.message or "", []).append(entry.platform)
    return "; ".join(f"{', '.join(platforms)}: {message}" for message, platforms in by_message.items())[:2048]


def _reason(run: RunStatus) -> Reason:
    """Return Building while anything is built, else what has to be waited for, the gravest first."""
    reasons = {entry.reason for entry in run.platforms if entry.phase is Phase.PENDING}
    if any(entry.phase is Phase.RUNNING for entry in run.platforms):
        return Reason.BUILDING
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
