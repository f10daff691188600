"""Events: what changed from one status to the next that is worth knowing."""

from collections.abc import Iterator

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import Mode, Phase, PlatformStatus, Result, RunStatus, Status

from .actions import EventRecord
from .demand import rebuild_request
from .sources import is_resolved


def transitions(build: MultiArchBuild, old: Status, new: Status) -> Iterator[EventRecord]:
    """Yield an event for each transition from `old` to `new`."""
    yield from _annotations(build, new)
    yield from _waiting(build, old, new)
    yield from _conditions(old, new)
    run, before = new.run, old.run
    if run is None:
        return
    if before is None or before.id != run.id:
        if before is not None and before.result is None:
            yield EventRecord(
                f"{before.id}/superseded",
                "Normal",
                Reason.SUPERSEDED,
                f"run {before.id} is superseded by {run.id}",
            )
        names = ", ".join(build.spec.platforms)
        yield EventRecord(f"{run.id}/started", "Normal", "RunStarted", f"run {run.id} ({run.trigger}) for {names}")
        before = None
    yield from _source(run, before)
    known = {entry.platform: entry for entry in before.platforms} if before else {}
    for entry in run.platforms:
        yield from _platform(run, entry, known.get(entry.platform))
    if run.result is not None and (before is None or before.result is None):
        kind = "Normal" if run.result is Result.SUCCEEDED else "Warning"
        yield EventRecord(f"{run.id}/ended", kind, run.reason or run.result, _end(run))


def _end(run: RunStatus) -> str:
    # Why a platform failed has an event of its own.
    failed = [entry.platform for entry in run.platforms if entry.phase is Phase.FAILED]
    if failed and run.result is Result.FAILED:
        return f"run {run.id} failed for {', '.join(failed)}; no tag was moved"
    return run.message or str(run.result)


def _conditions(old: Status, new: Status) -> Iterator[EventRecord]:
    """Yield what is not about a run: that none may start, and that tags are moved by two builds."""
    before = {(entry.type, entry.reason): entry for entry in old.conditions}
    for entry in new.conditions:
        key = f"{entry.reason}/{entry.observed_generation}/{entry.last_transition_time:%Y%m%dT%H%M%S}"
        known = before.get((entry.type, entry.reason))
        match entry.type, entry.reason:
            case (ConditionType.READY, Reason.POLICY_DENIED | Reason.INVALID_SPEC) | (
                ConditionType.TAG_CONFLICT,
                Reason.TAG_CONFLICT,
            ):
                if known is None or known.message != entry.message:
                    yield EventRecord(f"{key}/{entry.message}", "Warning", entry.reason, entry.message)
            case ConditionType.READY, Reason.QUEUED:
                if known is None:
                    yield EventRecord(key, "Normal", entry.reason, entry.message)


def _annotations(build: MultiArchBuild, status: Status) -> Iterator[EventRecord]:
    annotations = build.metadata.annotations
    request = annotations.get(REBUILD_ANNOTATION)
    if request is not None and rebuild_request(build) is None:
        yield EventRecord(
            f"invalid/{REBUILD_ANNOTATION}/{request}",
            "Warning",
            "InvalidAnnotation",
            f"annotation {REBUILD_ANNOTATION} is {request[:64]!r}, ignored: write a time such as 2026-01-31T12:00:00Z",
        )
    cancel = annotations.get(CANCEL_ANNOTATION)
    known = {entry.id for entry in status.history} | ({status.run.id} if status.run else set())
    if cancel is not None and cancel not in known:
        yield EventRecord(
            f"invalid/{CANCEL_ANNOTATION}/{cancel}",
            "Warning",
            "InvalidAnnotation",
            f"annotation {CANCEL_ANNOTATION} is {cancel[:64]!r}, ignored: write the id of the run in status.run.id",
        )


def _waiting(build: MultiArchBuild, old: Status, new: Status) -> Iterator[EventRecord]:
    before, now = (
        next((entry for entry in status.conditions if entry.reason == Reason.SOURCE_NOT_READY), None)
        for status in (old, new)
    )
    if now is not None and (before is None or before.observed_generation != now.observed_generation):
        key = f"{build.metadata.generation}/{now.last_transition_time}/{Reason.SOURCE_NOT_READY}"
        yield EventRecord(key, "Warning", Reason.SOURCE_NOT_READY, now.message)
    check = new.source
    if check and check.reason and (old.source is None or old.source.reason is not check.reason):
        key = f"{new.run.id if new.run else ''}/check/{check.checks}/{check.reason}"
        yield EventRecord(key, "Warning", "SourceCheckFailed", f"{check.reason}: {check.message}")


def _source(run: RunStatus, before: RunStatus | None) -> Iterator[EventRecord]:
    # A run that carries results over knows the commit of the run before until it has resolved its own.
    if run.source and is_resolved(run) and not (before and is_resolved(before)):
        yield EventRecord(
            f"{run.id}/resolved",
            "Normal",
            "SourceResolved",
            f"{run.source.ref} is {f'commit {run.source.commit}' if run.source.commit else run.source.digest}",
        )


def _platform(run: RunStatus, entry: PlatformStatus, before: PlatformStatus | None) -> Iterator[EventRecord]:
    key = f"{run.id}/{entry.platform}/{entry.attempt}"
    fresh = before is None or before.attempt != entry.attempt
    if entry.mode is Mode.EMULATED and (fresh or (before is not None and before.mode is not Mode.EMULATED)):
        message = f"{entry.platform} is built under QEMU" + (f": {entry.message}" if entry.message else "")
        yield EventRecord(f"{key}/emulated", "Warning", "Emulated", message)
    if fresh or (before is not None and (before.phase, before.reason) != (entry.phase, entry.reason)):
        yield from _phase(entry, key)


def _phase(entry: PlatformStatus, key: str) -> Iterator[EventRecord]:
    match entry.phase, entry.reason:
        case Phase.RUNNING, _:
            message = f"{entry.platform} is built on {entry.node} ({entry.mode}) by pod {entry.pod}"
            yield EventRecord(f"{key}/running", "Normal", "PlatformStarted", message)
        case Phase.SUCCEEDED, _:
            yield EventRecord(f"{key}/built", "Normal", "PlatformBuilt", f"{entry.platform} is built: {entry.digest}")
        case Phase.FAILED, reason:
            message = f"{entry.platform}: {entry.message}"
            yield EventRecord(f"{key}/failed", "Warning", reason or Reason.STEP_FAILED, message)
        case Phase.PENDING, (
            Reason.RETRYING | Reason.NO_BUILDER | Reason.WAITING_FOR_NATIVE_NODE | Reason.UNSCHEDULABLE
        ) as reason:
            message = f"{entry.platform}: {entry.message}"
            yield EventRecord(f"{key}/{reason}", "Warning", reason, message)
