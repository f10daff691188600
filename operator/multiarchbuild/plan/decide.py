"""The heart: what should happen next for one build."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.conditions import Condition, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import HistoryEntry, ImageStatus, Result, RunStatus, SourceCheck, Status

from . import admission, demand, events, polling, retention, runs, summary
from .actions import Action, EventRecord
from .children import ConfigMap, Node, Pod
from .conflicts import tag_conflict
from .context import Context, earliest
from .flux import Artifact
from .identity import fingerprint
from .others import Other
from .policy import Policy


@dataclass(frozen=True, slots=True)
class Children:
    """What exists in the cluster for a build."""

    pods: tuple[Pod, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()
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
    others: Sequence[Other] = (),
) -> Decision:
    """Return what should happen next for `build`. Pure: no I/O, no clock, no randomness."""
    old = build.status
    run, history = old.run, old.history
    context = Context(build, children.pods, nodes, policy, now, children.artifact)
    check = polling.advance(context, run, old.source)
    new = demand.next_run(context, check.found)
    held = admission.held(build, others, policy, now) if new is not None else None
    if new is not None and held is not None:
        check = polling.remembered(check, old.source)
    if new is not None and held is None:
        check = polling.answered(check)
        if run is not None and run.result is None:
            superseded = runs.history_entry(run, Result.SUPERSEDED, Reason.SUPERSEDED, None, now)
            history = (superseded, *history)
        run = new
    progress = None
    if run is not None and run.result is None:
        progress = runs.advance(context, run)
        run = summary.bounded(progress.run)
        if run.result is not None:
            check = polling.advance(context, run, check.status)
            history = (_entry(run, progress.image, now), *history)
    status = _status(context, run, progress.image if progress else None, history, summary.bounded_check(check.status))
    ended = progress.run if progress and progress.run.result is not None else None
    moved = ended is not None and demand.newer_artifact(context, ended) is not None
    wake_at = earliest(progress.wake_at if progress else None, check.wake_at, now if moved else None)
    if held is not None and (run is None or run.result is not None):
        stated = admission.conditions(old.conditions, held, build.metadata.generation, now)
        status = status.model_copy(update={"conditions": stated})
        wake_at = earliest(wake_at, now + admission.LOOK_AGAIN if held.reason is Reason.QUEUED else None)
    if (conflict := tag_conflict(build, others, now)) is not None:
        stated = (*status.conditions, *merge(old.conditions, (conflict,)))
        status = status.model_copy(update={"conditions": stated})
    return Decision(
        before=(*(progress.actions if progress else ()), *check.actions),
        status=status,
        after=tuple(
            retention.deletions(children.pods, children.config_maps, status.run, status.history, status.source)
        ),
        events=tuple(events.transitions(build, old, status)),
        wake_after=None if wake_at is None else max(wake_at - now, timedelta()),
    )


def _entry(run: RunStatus, image: ImageStatus | None, now: datetime) -> HistoryEntry:
    assert run.result is not None
    digest = image.digest if image else None
    return runs.history_entry(run, run.result, run.reason or Reason.STEP_FAILED, digest, now)


def _status(
    context: Context,
    run: RunStatus | None,
    image: ImageStatus | None,
    history: tuple[HistoryEntry, ...],
    check: SourceCheck | None,
) -> Status:
    build = context.build
    old, spec, generation = build.status, build.spec, build.metadata.generation
    image = image or old.image
    request = build.metadata.annotations.get(FLUX_RECONCILE_ANNOTATION)
    status = summary.fit(
        Status(
            observed_generation=generation,
            conditions=_conditions(context, run, check),
            image=image,
            run=run,
            source=check,
            platforms=summary.platforms_column(run, len(spec.platforms)),
            short_digest=image.digest.removeprefix("sha256:")[:12] if image else None,
            duration=summary.duration_column(run),
            last_handled_reconcile_at=request[:64] if request else None,
            history=retention.prune(history, spec.history),
        )
    )
    # Conditions say what the run says, also where that was cut: the next look has no more to go by.
    return (
        status
        if status.run == run
        else status.model_copy(update={"conditions": _conditions(context, status.run, check)})
    )


def _conditions(context: Context, run: RunStatus | None, check: SourceCheck | None) -> tuple[Condition, ...]:
    build, now = context.build, context.now
    old, generation = build.status.conditions, build.metadata.generation
    problem = context.artifact.problem if context.artifact else ""
    if problem and not build.spec.suspend and demand.is_needed(build):
        return summary.waiting(old, f"{problem}: the run starts as soon as it has one", generation, now)
    note = f"the last look at the source failed: {check.reason}: {check.message}" if check and check.reason else problem
    current = run is None or run.inputs == fingerprint(build.spec).inputs
    return summary.conditions(old, run, generation, now, suspended=build.spec.suspend, current=current, note=note)
