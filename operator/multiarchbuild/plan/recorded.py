"""What only the operator knows of a run, for its build record: how long what waited for what."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import Phase, PlatformStatus, RunStatus

from .actions import KeepRecord
from .children import ConfigMap, Pod
from .identity import builder_slug, record_name


def run_phases(run: RunStatus) -> dict[str, float]:
    """Return the seconds that a run waited for its turn, and for its source to be pinned."""
    phases = {}
    if run.queued_at is not None:
        phases["queue"] = _between(run.queued_at, run.started_at)
    if run.resolve is not None and run.resolve.finished_at is not None and run.resolve.attempt:
        phases["resolve"] = _between(run.started_at, run.resolve.finished_at)
    return phases


def platform_phases(run: RunStatus, entry: PlatformStatus, pod: Pod | None) -> dict[str, float]:
    """Return the seconds that a builder waited for a node, and from then on until its container ran.

    A kept builder has both already; of the pod of an earlier run nothing is told.
    """
    if pod is None or pod.run_id != run.id or pod.handed is not None:
        return {}
    return dict(_phases(pod, entry.started_at))


def to_keep(
    build: MultiArchBuild, run: RunStatus | None, pods: Iterable[Pod], config_maps: Iterable[ConfigMap]
) -> Iterator[KeepRecord]:
    """Yield what has to be kept of builders of `run` that have failed for good: their pods may go before the run does.

    A run that succeeds needs none: its record is attached to its image.
    """
    if run is None:
        return
    failed = {entry.pod for entry in run.platforms if entry.phase is Phase.FAILED}
    known = {each.name for each in config_maps if each.is_record}
    for pod in pods:
        name = record_name(build, run.id, builder_slug(pod.platforms)) if pod.platforms else ""
        if pod.record and pod.name in failed and pod.run_id == run.id and name not in known:
            yield KeepRecord(name=name, run_id=run.id, platforms=pod.platforms, mode=pod.mode, record=pod.record)


def _phases(pod: Pod, started_at: datetime | None) -> Iterator[tuple[str, float]]:
    if pod.scheduled_at is not None:
        yield "schedule", _between(pod.created_at, pod.scheduled_at)
        if started_at is not None:
            yield "pull", _between(pod.scheduled_at, started_at)


def _between(start: datetime, end: datetime) -> float:
    # Two clocks may disagree; Kubernetes tells whole seconds.
    return max((end - start).total_seconds(), 0.0)
