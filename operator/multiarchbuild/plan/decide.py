"""The heart: what should happen next for one build."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.conditions import Condition, merge
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import FLUX_RECONCILE_ANNOTATION, MultiArchBuild
from multiarchbuild.api.status import HistoryEntry, ImageStatus, Result, RunStatus, Status

from . import admission, events, retention, runs, summary
from .actions import Action, EventRecord
from .children import ConfigMap, Node, Pod
from .conflicts import tag_conflict
from .context import Context
from .identity import fingerprint
from .others import Other
from .policy import Policy


@dataclass(frozen=True, slots=True)
class Children:
    """What exists in the cluster for a build."""

    pods: tuple[Pod, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()


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
    new = runs.next_run(build, now)
    held = admission.held(build, others, policy, now) if new is not None else None
    if new is not None and held is None:
        if run is not None and run.result is None:
            superseded = runs.history_entry(run, Result.SUPERSEDED, Reason.SUPERSEDED, None, now)
            history = (superseded, *history)
        run = new
    progress = None
    if run is not None and run.result is None:
        progress = runs.advance(Context(build, children.pods, nodes, policy, now), run)
        run = summary.bounded(progress.run)
        if run.result is not None:
            history = (_entry(run, progress.image, now), *history)
    status = _status(build, run, progress.image if progress else None, history, now)
    wake_at = progress.wake_at if progress else None
    if held is not None and (run is None or run.result is not None):
        stated = admission.conditions(old.conditions, held, build.metadata.generation, now)
        status = status.model_copy(update={"conditions": stated})
        wake_at = now + admission.LOOK_AGAIN if held.reason is Reason.QUEUED else None
    if (conflict := tag_conflict(build, others, now)) is not None:
        stated = (*status.conditions, *merge(old.conditions, (conflict,)))
        status = status.model_copy(update={"conditions": stated})
    return Decision(
        before=progress.actions if progress else (),
        status=status,
        after=tuple(retention.deletions(children.pods, children.config_maps, status.run, status.history)),
        events=tuple(events.transitions(build, old, status)),
        wake_after=None if wake_at is None else max(wake_at - now, timedelta()),
    )


def _entry(run: RunStatus, image: ImageStatus | None, now: datetime) -> HistoryEntry:
    assert run.result is not None
    digest = image.digest if image else None
    return runs.history_entry(run, run.result, run.reason or Reason.STEP_FAILED, digest, now)


def _status(
    build: MultiArchBuild,
    run: RunStatus | None,
    image: ImageStatus | None,
    history: tuple[HistoryEntry, ...],
    now: datetime,
) -> Status:
    old, spec, generation = build.status, build.spec, build.metadata.generation
    image = image or old.image
    current = run is None or run.inputs == fingerprint(spec).inputs
    request = build.metadata.annotations.get(FLUX_RECONCILE_ANNOTATION)

    def stated(run: RunStatus | None) -> tuple[Condition, ...]:
        return summary.conditions(old.conditions, run, generation, now, suspended=spec.suspend, current=current)

    status = summary.fit(
        Status(
            observed_generation=generation,
            conditions=stated(run),
            image=image,
            run=run,
            platforms=summary.platforms_column(run, len(spec.platforms)),
            short_digest=image.digest.removeprefix("sha256:")[:12] if image else None,
            duration=summary.duration_column(run),
            last_handled_reconcile_at=request[:64] if request else None,
            history=retention.prune(history, spec.history),
        )
    )
    # Conditions say what the run says, also where that was cut: the next look has no more to go by.
    return status if status.run == run else status.model_copy(update={"conditions": stated(status.run)})
