"""Events: what changed from one status to the next that a person wants to be told of.

That a platform is being built, or is built, status says; each Event is a write, and a run that goes well has two.
"""

from collections.abc import Iterator

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import BuilderUse, CacheVolumeUse, Mode, Phase, PlatformStatus, Result, RunStatus, Status

from .actions import EventRecord
from .demand import rebuild_request
from .identity import is_run_id
from .looks import WAITS
from .not_created import NotCreated
from .sources import is_resolved

_NEW_ONE = "it is deleted, and the next run gets a new one"
_WITHOUT_VOLUME = {
    CacheVolumeUse.IN_USE: "another pod, which does not end, has it",
    CacheVolumeUse.UNAVAILABLE: f"no node could mount it in time, or it was not made in time: {_NEW_ONE}",
    CacheVolumeUse.FAILED: f"it was full or not mounted, or buildkitd did not start with what is in it: {_NEW_ONE}",
    CacheVolumeUse.DELETED: "it is being deleted, or its storage is lost",
    CacheVolumeUse.REFUSED: "the API server did not let its claim be made",
}
_LOST = {
    BuilderUse.LOST: "was lost while it built, or failed for a reason that may be its own",
    BuilderUse.NO_ANSWER: "did not begin",
}


def transitions(build: MultiArchBuild, old: Status, new: Status) -> Iterator[EventRecord]:
    """Yield an event for each transition from `old` to `new`."""
    yield from _annotations(build)
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
        yield EventRecord(f"{run.id}/started", "Normal", "RunStarted", f"run {run.id} ({_why(run)}) for {names}")
        before = None
    known = {entry.platform: entry for entry in before.platforms} if before else {}
    for entry in run.platforms:
        yield from _platform(run, entry, known.get(entry.platform))
    yield from _rejected(run, before)
    if run.result is not None and (before is None or before.result is not run.result):
        kind = "Normal" if run.result is Result.SUCCEEDED else "Warning"
        # One that was thought to have ended otherwise may turn out to have been published.
        key = f"{run.id}/ended/{run.result}" if before and before.result else f"{run.id}/ended"
        yield EventRecord(key, kind, run.reason or run.result, _end(run))


def _why(run: RunStatus) -> str:
    return f"{run.trigger}: {run.cause}" if run.cause else str(run.trigger)


def names_taken(not_created: NotCreated) -> Iterator[EventRecord]:
    """Yield an event for each name that a child should have had and another object has."""
    for name in sorted(not_created.taken):
        message = f"an object {name} exists but does not belong to this build: it is neither changed nor used"
        yield EventRecord(f"{name}/taken", "Warning", "NameTaken", message)


def _rejected(run: RunStatus, before: RunStatus | None) -> Iterator[EventRecord]:
    """Yield what the API server has refused to create since: each refusal once, be it of use for one step or more."""
    known = set(_rejections(before)) if before else set()
    for message, key in _rejections(run).items():
        if message not in known:
            yield EventRecord(f"{run.id}/{key}/{Reason.POD_REJECTED}", "Warning", Reason.POD_REJECTED, message)


def _rejections(run: RunStatus) -> dict[str, str]:
    """Return the refusals in status: message, and which attempt of what it is about first."""
    steps = {"resolve": run.resolve, "publish": run.publish} | {entry.platform: entry for entry in run.platforms}
    found = [
        (step.message or "", f"{name}/{step.attempt}")
        for name, step in steps.items()
        if step and step.reason is Reason.POD_REJECTED
    ]
    return dict(reversed(found))


def _end(run: RunStatus) -> str:
    # Why a platform failed has an event of its own.
    failed = [entry.platform for entry in run.platforms if entry.phase is Phase.FAILED]
    if failed and run.result is Result.FAILED:
        return f"run {run.id} failed for {', '.join(failed)}; no tag was moved"
    return f"{run.message or run.result}{_of(run)}"


def _of(run: RunStatus) -> str:
    """Return what was built, in words that follow on what came of it."""
    source = run.source
    if source is None or not is_resolved(run) or not (source.commit or source.digest):
        return ""
    return f", of {source.ref} at {source.commit or source.digest}" if source.ref else f", of {source.digest}"


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


def _annotations(build: MultiArchBuild) -> Iterator[EventRecord]:
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
    # The run that it once cancelled is forgotten some day: only what never was an id is a mistake.
    if cancel is not None and not is_run_id(cancel):
        yield EventRecord(
            f"invalid/{CANCEL_ANNOTATION}/{cancel}",
            "Warning",
            "InvalidAnnotation",
            f"annotation {CANCEL_ANNOTATION} is {cancel[:64]!r}, ignored: write the id of the run in status.run.id",
        )


def _waiting(build: MultiArchBuild, old: Status, new: Status) -> Iterator[EventRecord]:
    for reason in (Reason.SOURCE_NOT_READY, Reason.PARENT_NOT_READY):
        before, now = (
            next((entry for entry in status.conditions if entry.reason == reason), None) for status in (old, new)
        )
        if now is not None and (before is None or before.observed_generation != now.observed_generation):
            key = f"{build.metadata.generation}/{now.last_transition_time}/{reason}"
            yield EventRecord(key, "Warning", reason, now.message)
    for kind, told, before_it in (
        ("check", "SourceCheckFailed", (old.source, new.source)),
        ("check-bases", "BaseImageCheckFailed", (old.base_images, new.base_images)),
    ):
        last, check = before_it
        if check and check.reason and check.reason not in WAITS and (last is None or last.reason is not check.reason):
            key = f"{new.run.id if new.run else ''}/{kind}/{check.checks}/{check.reason}"
            yield EventRecord(key, "Warning", told, f"{check.reason}: {check.message}")


def _platform(run: RunStatus, entry: PlatformStatus, before: PlatformStatus | None) -> Iterator[EventRecord]:
    key = f"{run.id}/{entry.platform}/{entry.attempt}"
    fresh = before is None or before.attempt != entry.attempt
    if entry.mode is Mode.EMULATED and (fresh or (before is not None and before.mode is not Mode.EMULATED)):
        message = f"{entry.platform} is built under QEMU" + (f": {entry.message}" if entry.message else "")
        yield EventRecord(f"{key}/emulated", "Warning", "Emulated", message)
    if entry.builder in _LOST and (before is None or before.builder is not entry.builder):
        message = f"{entry.platform}: the kept builder {_LOST[entry.builder]}: another pod builds, in the same attempt"
        yield EventRecord(f"{key}/{entry.builder}", "Warning", "KeptBuilderLost", message)
    if entry.volume in _WITHOUT_VOLUME and (before is None or before.volume is not entry.volume):
        message = f"{entry.platform} is built without the volume of its cache: {_WITHOUT_VOLUME[entry.volume]}"
        message += f": {entry.message}" if entry.volume is CacheVolumeUse.REFUSED and entry.message else ""
        yield EventRecord(f"{key}/volume/{entry.volume}", "Warning", "CacheVolumeNotUsed", message)
    if fresh or (before is not None and (before.phase, before.reason) != (entry.phase, entry.reason)):
        yield from _phase(entry, key)


def _phase(entry: PlatformStatus, key: str) -> Iterator[EventRecord]:
    match entry.phase, entry.reason:
        case Phase.FAILED, reason:
            message = f"{entry.platform}: {entry.message}"
            yield EventRecord(f"{key}/failed", "Warning", reason or Reason.STEP_FAILED, message)
        case Phase.PENDING, (
            Reason.RETRYING | Reason.NO_BUILDER | Reason.WAITING_FOR_NATIVE_NODE | Reason.UNSCHEDULABLE
        ) as reason:
            message = f"{entry.platform}: {entry.message}"
            yield EventRecord(f"{key}/{reason}", "Warning", reason, message)
