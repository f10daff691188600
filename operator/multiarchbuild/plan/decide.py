"""The heart: what should happen next for one build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from multiarchbuild.api.conditions import Condition
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import (
    BaseImagesCheck,
    HistoryEntry,
    ImageStatus,
    LookStatus,
    Result,
    RunStatus,
    SourceCheck,
    Status,
)

from . import (
    admission,
    base_images,
    builds,
    claims,
    demand,
    events,
    kept,
    polling,
    publishing,
    recorded,
    retention,
    runs,
    summary,
    timed,
)
from .actions import Action, EventRecord
from .children import Claim, ConfigMap, Node, Pod
from .cluster import ClusterView
from .conflicts import tag_conflict
from .context import Context, earliest
from .flux import Artifact
from .identity import digest, fingerprint
from .looks import WAITS
from .not_created import NotCreated
from .parents import parents_of
from .policy import Policy
from .summary import Wait

_RESYNC = timedelta(seconds=150)
_RESYNC_JITTER = 60
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Children:
    """What exists in the cluster for a build."""

    pods: tuple[Pod, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()
    claims: tuple[Claim, ...] = ()
    artifact: Artifact | None = None
    """What Flux says, where the source is an object of Flux."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, what to say, and when to look again if nothing happens before."""

    before: tuple[Action, ...]
    """Performed in order, before status is written: everything that starts something."""
    status: Status
    after: tuple[Action, ...]
    """Performed once status is written: deletions of what it has taken the result of."""
    events: tuple[EventRecord, ...]
    wake_after: timedelta | None


def decide(
    build: MultiArchBuild,
    children: Children,
    nodes: Sequence[Node],
    policy: Policy,
    now: datetime,
    *,
    others: ClusterView | None = None,
    not_created: NotCreated | None = None,
    template: kept.Template | None = None,
) -> Decision:
    """Return what should happen next for `build`. Pure: no I/O, no clock, no randomness.

    Facts come first: what pods have ended with enters the run before a cancel, an edit or the deadline ends what still
    goes on. A look that finds that a run has ended starts no other: status says each of the two once.

    Args:
        build: As it is now.
        children: What exists for it.
        nodes: Of the cluster.
        policy: Of the operator.
        now: The time, to the second.
        others: The other builds.
        not_created: What was asked for in this look and not created. Decided once more with it, nothing of that is
            asked for again, and all else is as before.
        template: What pods of one build and platform have in common; without it no builder is kept.
    """
    old, others = build.status, others or ClusterView()
    context = Context(
        build,
        children.pods,
        nodes,
        policy,
        now,
        children.artifact,
        children.config_maps,
        not_created or NotCreated(),
        template,
        children.claims,
        parents_of(build, others),
        others,
    )
    progress = runs.read(context, old.run) if old.run is not None else None
    run = progress.run if progress is not None else None
    late = publishing.late_images(context, old.history)
    images = [*publishing.unknown_images(context, old.history), *late.values()]
    images += filter(None, [progress.image if progress else None])
    history = tuple(_corrected(entry, late) for entry in old.history)
    has_ended = run is not None and old.run is not None and run.result is not old.run.result
    if has_ended and run is not None:
        history = _with_entry(history, run, progress.image if progress else None, now)
    # From here on the run is as its pods say.
    known = {"run": run, "history": history, "image": _newest(old.image, images)}
    build = build.model_copy(update={"status": old.model_copy(update=known)})
    context = replace(context, build=build)

    publishes_until = publishing.goes_on_until(context, run) if run is not None and run.result is None else None
    check = polling.poll(context, run, old.source, others=others.polling_beside(build.metadata.uid))
    bases = base_images.ask(context, run, old.base_images, others=others.polling_beside(build.metadata.uid))
    new = demand.next_run(context, check.found, bases.status) if publishes_until is None else None
    blocker = admission.blocked_by(build, others, policy, now) if new is not None else None
    run_follows = new is not None and blocker is None and has_ended
    if new is not None and (blocker is not None or has_ended):
        check = polling.postponed(check, old.source)
    elif new is not None:
        check, bases = polling.restarted(check), base_images.restarted(bases)
        if run is not None and run.result is None:
            history = (runs.history_entry(run, Result.SUPERSEDED, Reason.SUPERSEDED, None, now), *history)
        progress = runs.read(context, new)
    if progress is not None and not has_ended:
        progress = _brought_forward(context, progress, publishes_until)
        run = summary.bounded(progress.run)
        if run.result is not None and (old.run is None or (run.id, run.result) != (old.run.id, old.run.result)):
            images += [progress.image] if progress.image else []
            newest = build.status.model_copy(update={"image": _newest(old.image, images)})
            context = replace(context, build=build.model_copy(update={"status": newest}))
            check = polling.poll(context, run, check.status, others=others.polling_beside(build.metadata.uid))
            bases = base_images.ask(context, run, bases.status, others=others.polling_beside(build.metadata.uid))
            history = _with_entry(history, run, progress.image, now)
    elif run is not None:
        run = summary.bounded(run)
    status = _status(
        Findings(
            run=run,
            image=_newest(old.image, images),
            history=history,
            check=summary.bounded_check(check.status),
            bases=summary.bounded_check(bases.status),
            blocker=blocker,
            run_follows=run_follows,
            conflict=tag_conflict(build, others),
        ),
        context,
    )
    before = (*(progress.actions if progress else ()), *check.actions, *bases.actions)
    after, look_again = _after(context, status, before)
    wake_at = earliest(
        progress.wake_at if progress else None,
        check.wake_at,
        bases.wake_at,
        look_again,
        demand.wakes_at(context, status.run) if status.run is not None else None,
        now if run_follows or _another_follows(context, old.run, run, bases.status) else None,
        _resync_at(context, run, check.status, bases.status),
    )
    return Decision(
        before=before,
        status=status,
        after=after,
        events=(*events.transitions(build, old, status), *events.names_taken(context.not_created)),
        wake_after=None if wake_at is None else max(wake_at - now, timedelta()),
    )


def _after(context: Context, status: Status, before: tuple[Action, ...]) -> tuple[tuple[Action, ...], datetime | None]:
    """Return what is to do once `status` is written, and when to look again whether that is all."""
    build, pods, policy, now = context.build, context.pods, context.policy, context.now
    built_together = (each.platforms for each in builds.builders(build.spec))
    claims_gone = tuple(claims.deletions(build, policy, context.claims, built_together, status.run))
    held = claims.held(pods, context.claims, claims_gone)
    # What a builder takes along goes in the same look: the pod that publishes.
    others = [pod for pod in pods if pod.name not in held]
    stay = kept.staying(others, status.run, build, nodes=context.nodes, policy=policy, now=now)
    looks = status.source, status.base_images
    unneeded = retention.deletions(pods, context.config_maps, status.run, status.history, looks, now=now, stay=stay)
    gone = tuple(dict.fromkeys([*unneeded, *retention.ended(pods, held)]))
    marks = tuple(kept.marks(pods, status.run, stay, now=now))
    resizes = tuple(kept.requests(pods, stay, marks, before, policy))
    records = recorded.to_keep(build, status.run, pods, context.config_maps)
    names = {action.name for action in gone}
    overdue = (retention.overdue_at(pod) for pod in pods if pod.name not in names)
    look_again = earliest(kept.raised_again_at(resizes, before, now), *overdue)
    return (*records, *marks, *resizes, *gone, *claims_gone), look_again


def _another_follows(
    context: Context, old: RunStatus | None, run: RunStatus | None, bases: BaseImagesCheck | None
) -> bool:
    """Return whether `run` has ended in this look, and the next one starts another."""
    ended = run is not None and run.result is not None and old is not None and old.result is None
    return ended and run is not None and demand.follows(context, run, bases)


def _brought_forward(
    context: Context, progress: runs.RunProgress, publishes_until: datetime | None
) -> runs.RunProgress:
    """Return what is to do for a run, or its end where it should not go on."""
    if progress.run.result is not None:
        return progress
    why = runs.stop(context, progress.run)
    if why is None:
        return runs.proceed(context, progress)
    if publishes_until is None:
        return runs.stopped(context, progress.run, why)
    waiting = f"{why.message}; waits for the publish step, which may have moved the tags"
    run = progress.run.model_copy(update={"reason": Reason.PUBLISHING, "message": waiting})
    return replace(progress, run=run, wake_at=earliest(progress.wake_at, publishes_until))


def _resync_at(context: Context, run: RunStatus | None, *checks: LookStatus | None) -> datetime | None:
    """Return when what goes on is looked at even if no event comes: a watch may have missed it."""
    goes_on = (run is not None and run.result is None) or any(check and check.pod for check in checks)
    # Always the same for a build, and another for each: they do not all come at once.
    jitter = timedelta(seconds=int(digest(context.build.metadata.uid)[:4], 16) % _RESYNC_JITTER)
    return context.now + _RESYNC + jitter if goes_on else None


def _corrected(entry: HistoryEntry, late: Mapping[str, ImageStatus]) -> HistoryEntry:
    """Return `entry` as a success where its pod has moved tags after all, as in the moment before it was deleted."""
    if entry.id not in late:
        return entry
    image = late[entry.id]
    fields = {
        "result": Result.SUCCEEDED,
        "reason": Reason.SUCCEEDED,
        "digest": image.digest,
        "record": image.record,
    }
    return entry.model_copy(update=fields)


def _with_entry(
    history: tuple[HistoryEntry, ...], run: RunStatus, image: ImageStatus | None, now: datetime
) -> tuple[HistoryEntry, ...]:
    assert run.result is not None
    entry = runs.history_entry(run, run.result, run.reason or Reason.STEP_FAILED, image, now)
    return (entry, *(each for each in history if each.id != run.id))


def _newest(image: ImageStatus | None, found: Sequence[ImageStatus]) -> ImageStatus | None:
    """Return the image whose tags were moved last: `image`, or one of those that this look has found."""
    for each in found:
        known = image.published_at if image is not None else None
        if known is None or each.published_at is None or each.published_at >= known:
            image = each
    return image


@dataclass(frozen=True, slots=True)
class Findings:
    """What a decision has found, of which status is made."""

    run: RunStatus | None
    image: ImageStatus | None
    history: tuple[HistoryEntry, ...]
    check: SourceCheck | None
    bases: BaseImagesCheck | None
    blocker: admission.Blocker | None
    run_follows: bool
    conflict: str


def _status(found: Findings, context: Context) -> Status:
    build, run, image = context.build, found.run, found.image
    spec, generation = build.spec, build.metadata.generation
    request = build.metadata.annotations.get(FLUX_RECONCILE_ANNOTATION)
    status = summary.fit(
        Status(
            observed_generation=generation,
            conditions=_conditions(found, context, run),
            image=image,
            run=run,
            source=found.check,
            base_images=found.bases,
            columns=summary.columns(run, image, len(spec.platforms)),
            last_handled_reconcile_at=request[:64] if request else None,
            history=retention.prune(found.history, spec.history),
        )
    )
    # Conditions say what the run says, also where that was cut: the next look has no more to go by.
    return (
        status
        if status.run == run
        else status.model_copy(update={"conditions": _conditions(found, context, status.run)})
    )


def _conditions(found: Findings, context: Context, run: RunStatus | None) -> tuple[Condition, ...]:
    build, check = context.build, found.check
    problem = context.artifact.problem if context.artifact else ""
    waits_for = f"{problem}: the run starts as soon as it has one" if problem else context.parents.problem
    waits = waits_for and not context.parents.cycle and not build.spec.suspend and demand.is_needed(build)
    failed = [
        f"the last look at {what} failed: {look.reason}: {look.message}"
        for what, look in (("the source", check), ("base images", found.bases))
        if look and look.reason and look.reason not in WAITS
    ]
    failed_looks = "; ".join(failed)
    return summary.conditions(
        build.status.conditions,
        run,
        build.metadata.generation,
        context.now,
        suspended=build.spec.suspend,
        current=run is None or run.inputs == fingerprint(build.spec).inputs,
        note=failed_looks
        or problem
        or context.parents.problem
        or context.parents.note
        or polling.skipped(check)
        or base_images.note(context),
        blocker=found.blocker,
        waits_for=Wait(Reason.SOURCE_NOT_READY if problem else Reason.PARENT_NOT_READY, waits_for) if waits else None,
        run_follows=found.run_follows,
        retried_at=timed.retried_at(context, run) if run is not None and not build.spec.suspend else None,
        conflict=found.conflict,
    )
