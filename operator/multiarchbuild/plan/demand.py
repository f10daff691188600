"""When a run has to be started, and what it begins with."""

import re
from datetime import datetime

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import Phase, PlatformStatus, Result, RunStatus, SourceStatus, Trigger

from . import builds, sources
from .context import Context
from .identity import Fingerprint, fingerprint, run_id
from .polling import Found

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


def next_run(context: Context, found: Found | None) -> RunStatus | None:
    """Return the run that has to be started, or None where the one in status still answers what is asked for.

    `found` is a branch or tag that has moved since the last run. A run that goes on is not given up for a newer
    source: where sources change faster than they are built, nothing would ever be published.
    """
    build = context.build
    wanted, request, last = fingerprint(build.spec), rebuild_request(build), build.status.run
    if build.spec.suspend:
        return None
    run = RunStatus(
        id=run_id(build, wanted, request),
        trigger=Trigger.SPEC_CHANGED,
        inputs=wanted.inputs,
        execution=wanted.execution,
        request=request,
        started_at=context.now,
    )
    if last is None or is_needed(build):
        if context.waits_for_artifact:
            return None
        if last is not None and request is not None and request != last.request:
            run = run.model_copy(update={"trigger": Trigger.REQUESTED})
        run = run.model_copy(update={"source": sources.at_start(build.spec, context.artifact)})
        return _carry_over(last, run, build) if last is not None else run
    if last.result is None:
        return None
    return _source_changed(context, last, run, wanted, found)


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
    if found is not None:
        source, resolve = found.source, sources.found_by(found.pod, found.finished_at)
    elif (artifact := newer_artifact(context, last)) is not None:
        source, resolve = artifact, None
    else:
        return None
    identity = run_id(context.build, wanted, run.request, source)
    changed = {"id": identity, "trigger": Trigger.SOURCE_CHANGED, "source": source, "resolve": resolve}
    return run.model_copy(update=changed)


def newer_artifact(context: Context, run: RunStatus) -> SourceStatus | None:
    """Return what Flux serves by now if it is something else than what `run`, which has ended, was to build."""
    artifact = context.artifact.source if context.artifact else None
    return artifact if artifact is not None and sources.differ(artifact, run.source) else None


def _carry_over(last: RunStatus, run: RunStatus, build: MultiArchBuild) -> RunStatus:
    """Keep what a failed run with the same inputs has built: only what is missing is built again.

    Where the source has to be resolved, the kept results count only if it resolves to the same commit (`runs.advance`).
    A run whose publish step failed keeps nothing, as the registry may have lost what was built, unless it lacked a
    Secret: the key that signs is not known before.
    """
    kept = tuple(entry for entry in last.platforms if entry.phase is Phase.SUCCEEDED)
    intact = last.publish is None or last.publish.reason in {Reason.SECRET_NOT_FOUND, Reason.SECRET_INVALID}
    same = last.inputs == run.inputs and last.result in {Result.FAILED, Result.CANCELLED} and intact
    changed = run.source is not None and sources.differ(run.source, last.source)
    if not same or changed or not kept:
        return run
    known = {entry.platform: entry for entry in kept}
    for builder in builds.builders(build.spec):
        # What several builders made can't stand for the one result of a Cross builder.
        if len({known[name].digest if name in known else None for name in builder.names}) > 1:
            known = {name: entry for name, entry in known.items() if name not in builder.names}
    platforms = tuple(known.get(name, PlatformStatus(platform=name)) for name in build.spec.platforms)
    return run.model_copy(update={"platforms": platforms, "source": run.source or last.source})
