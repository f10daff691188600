"""When a run has to be started, and what it begins with."""

import re
from collections.abc import Sequence
from datetime import datetime

from multiarchbuild.api import limits
from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import BaseImagesCheck, Phase, PlatformStatus, Result, RunStatus, SourceStatus, Trigger

from . import base_images, builds, parents, sources, timed, unchanged
from .context import Context, earliest
from .identity import Fingerprint, fingerprint, run_id
from .polling import Found
from .tracing import trace_of

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


def rebuild_request(build: MultiArchBuild) -> str | None:
    """Return the value of the rebuild annotation, or None where it has none or none that is an RFC 3339 time."""
    value = build.metadata.annotations.get(REBUILD_ANNOTATION, "")
    if not _RFC3339.fullmatch(value):
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return None
    return value


def next_run(context: Context, found: Found | None, bases: BaseImagesCheck | None = None) -> RunStatus | None:
    """Return the run that has to be started, or None where the one in status still answers what is asked for."""
    run = _next_run(context, found, bases)
    if run is None or not context.policy.tracing.enabled:
        return run
    return run.model_copy(update={"trace_id": trace_of(context.build, run.id)})


def _next_run(context: Context, found: Found | None, bases: BaseImagesCheck | None) -> RunStatus | None:
    """`found` is a branch or tag that has moved since the last run.

    A run that goes on is not given up for a newer source: where sources change faster than they are built, nothing
    would ever be published.
    """
    build = context.build
    wanted, request, last = fingerprint(build.spec), rebuild_request(build), build.status.run
    if build.spec.suspend:
        return None
    moved = base_images.known(last, context, bases)
    run = RunStatus(
        id=run_id(build, wanted, request, made_from=_made_from(context, moved)),
        trigger=Trigger.SPEC_CHANGED,
        parents=context.parents.images,
        bases=moved,
        inputs=wanted.inputs,
        execution=wanted.execution,
        request=request,
        started_at=context.now,
        queued_at=_queued_at(build),
    )
    if last is None or is_needed(build):
        if context.waits:
            return None
        if last is not None and request is not None and request != last.request:
            run = run.model_copy(update={"trigger": Trigger.REQUESTED})
        run = run.model_copy(update={"source": sources.at_start(build.spec, context.artifact)})
        if run.trigger is Trigger.REQUESTED and (found_before := unchanged.comparison(build, run)) is not None:
            # Until it is looked up, the source is what it was.
            return run.model_copy(update={"comparison": found_before, "source": run.source or last_source(last)})
        return _carry_over(last, run, build) if last is not None else run
    if last.result is None:
        return None
    return (
        _source_changed(context, last, run, wanted, found)
        or _caused(context, last, run, bases)
        or _timed(context, last, run)
    )


def _made_from(context: Context, moved: Sequence[str]) -> list[str]:
    return [*(parent.ref for parent in context.parents.images), *moved]


def follows(context: Context, run: RunStatus, bases: BaseImagesCheck | None) -> bool:
    """Return whether something else than a look at the source has another run follow on `run`, which has ended."""
    newer = newer_artifact(context, run) is not None and timed.may_start(context)
    # A run may end after the time at which the next one was due.
    due = _caused(context, run, run, bases) or _timed(context, run, run)
    return newer or due is not None


def wakes_at(context: Context, run: RunStatus) -> datetime | None:
    """Return when time alone has a run follow on `run`, None where it never does or where it does already."""
    if run.result is None or context.build.spec.suspend or context.waits or is_needed(context.build):
        return None
    held = parents.changed(run, context.parents) or newer_artifact(context, run) is not None
    at = earliest(
        timed.scheduled_at(context, run),
        timed.retried_at(context, run),
        timed.opens(context, context.now) if held else None,
    )
    return at if at is not None and at > context.now else None


def _timed(context: Context, last: RunStatus, run: RunStatus) -> RunStatus | None:
    """Return `run` where it is time for it."""
    if context.waits:
        return None
    retried, scheduled = timed.retried_at(context, last), timed.scheduled_at(context, last)
    if retried is not None and context.now >= retried:
        cause = f"the last run ended with {last.reason}, and rebuild.retryInterval has passed"
        again = _again(context, run, Trigger.RETRIED, cause)
        return _carry_over(last, again.model_copy(update={"retry": last.retry + 1}), context.build)
    if scheduled is not None and context.now >= scheduled:
        cause = f"rebuild.schedule is {context.build.spec.rebuild.schedule}"
        return _again(context, run, Trigger.SCHEDULED, cause)
    return None


def _caused(context: Context, last: RunStatus, run: RunStatus, bases: BaseImagesCheck | None) -> RunStatus | None:
    """Return `run` where something beside the source has changed that `last` was made from."""
    if context.waits:
        return None
    if (cause := parents.changed(last, context.parents)) and timed.may_start(context):
        return _again(context, run, Trigger.PARENT_PUBLISHED, cause)
    if cause := base_images.cause(context, last, bases):
        return _again(context, run, Trigger.BASE_IMAGE_CHANGED, cause)
    return None


def _again(context: Context, run: RunStatus, trigger: Trigger, cause: str) -> RunStatus:
    source = sources.at_start(context.build.spec, context.artifact)
    return run.model_copy(update={"trigger": trigger, "cause": cause[: limits.CAUSE], "source": source})


def _queued_at(build: MultiArchBuild) -> datetime | None:
    """Return since when the build waits for its turn, by its conditions."""
    waits = (each for each in build.status.conditions if each.type == ConditionType.READY)
    return next((each.last_transition_time for each in waits if each.reason == Reason.QUEUED), None)


def last_source(last: RunStatus | None) -> SourceStatus | None:
    """Return what the last run has built."""
    return last.source if last is not None else None


def _outdated(last: RunStatus, wanted: Fingerprint, request: str | None) -> bool:
    if last.inputs != wanted.inputs or (request is not None and request != last.request):
        return True
    # Superseded while suspend was true: it stays unbuilt even if the spec is again what it was.
    if last.result is Result.SUPERSEDED:
        return True
    return last.result is not Result.SUCCEEDED and last.execution != wanted.execution


def is_needed(build: MultiArchBuild) -> bool:
    """Return whether a run for the spec or a request is missing, whatever the source says."""
    last = build.status.run
    return last is None or _outdated(last, fingerprint(build.spec), rebuild_request(build))


def _source_changed(
    context: Context, last: RunStatus, run: RunStatus, wanted: Fingerprint, found: Found | None
) -> RunStatus | None:
    """Return `run` for the source as it is now, or None where `last` has built that, or has failed to."""
    if context.waits:
        return None
    if found is not None:
        source, resolve = found.source, sources.found_by(found.pod, found.finished_at)
    elif (artifact := newer_artifact(context, last)) is not None and timed.may_start(context):
        source, resolve = artifact, None
    else:
        return None
    identity = run_id(context.build, wanted, run.request, source, _made_from(context, run.bases))
    changed = {"id": identity, "trigger": Trigger.SOURCE_CHANGED, "source": source, "resolve": resolve}
    return run.model_copy(update=changed)


def newer_artifact(context: Context, run: RunStatus) -> SourceStatus | None:
    """Return what Flux serves if it is to be built and not what `run`, which has ended, was to build."""
    if context.build.spec.source.paths is not None and run.source is not None and run.source.paths is not None:
        return None  # a look has to say first whether it changes anything
    artifact = context.artifact.source if context.artifact else None
    return artifact if artifact is not None and sources.differ(artifact, run.source) else None


def _carry_over(last: RunStatus, run: RunStatus, build: MultiArchBuild) -> RunStatus:
    """Keep what a failed run with the same inputs has built: only what is missing is built again.

    Where the source has to be resolved, the kept results count only if it resolves to the same commit (`runs.read`).
    A run whose publish step failed at it keeps nothing, as the registry may have lost what was built, unless it lacked
    a Secret: the key that signs is not known before.
    """
    # Which builder it was is told of the run that built it.
    ended = (entry for entry in last.platforms if entry.phase is Phase.SUCCEEDED)
    kept = tuple(entry.model_copy(update={"builder": None}) for entry in ended)
    lacked_secret = last.publish is not None and last.publish.reason in {Reason.SECRET_NOT_FOUND, Reason.SECRET_INVALID}
    # Unless all is built, nothing was handed to the publish step.
    intact = last.publish is None or lacked_secret or len(kept) < len(last.platforms)
    same = last.inputs == run.inputs and last.result in {Result.FAILED, Result.CANCELLED} and intact
    changed = run.source is not None and sources.differ(run.source, last.source)
    changed = changed or run.parents != last.parents
    if not same or changed or not kept:
        return run
    known = {entry.platform: entry for entry in kept}
    for builder in builds.builders(build.spec):
        # What several builders made can't stand for the one result of a Cross builder.
        if len({known[name].builder_output if name in known else None for name in builder.names}) > 1:
            known = {name: entry for name, entry in known.items() if name not in builder.names}
    platforms = tuple(known.get(name, PlatformStatus(platform=name)) for name in build.spec.platforms)
    return run.model_copy(update={"platforms": platforms, "source": run.source or last.source})
