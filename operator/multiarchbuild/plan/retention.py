"""Which children go: those that nobody reads any more."""

from collections.abc import Iterator

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import History
from multiarchbuild.api.status import HistoryEntry, Phase, Result, RunStatus, SourceCheck

from .actions import DeleteConfigMap, DeletePod
from .children import ConfigMap, Pod, Role


def prune(history: tuple[HistoryEntry, ...], limits: History) -> tuple[HistoryEntry, ...]:
    """Return the ended runs to keep, the newest first: as many successful and other ones as `limits` says."""
    room = {True: limits.successful, False: limits.failed}
    kept = []
    for entry in history:
        succeeded = entry.result is Result.SUCCEEDED
        if room[succeeded] > 0:
            room[succeeded] -= 1
            kept.append(entry)
    return tuple(kept)


def deletions(
    pods: tuple[Pod, ...],
    config_maps: tuple[ConfigMap, ...],
    run: RunStatus | None,
    history: tuple[HistoryEntry, ...],
    check: SourceCheck | None = None,
) -> Iterator[DeletePod | DeleteConfigMap]:
    """Yield what goes. Pods of kept runs stay for their logs; what still runs stays only while its run needs it.

    A pod that only looked whether the source has changed goes when it has ended.
    """
    kept = {entry.id for entry in history} | ({run.id} if run else set())
    needed = set(_needed(run)) if run else set()
    for pod in pods:
        if pod.role is Role.CHECK:
            unneeded = check is None or pod.name != check.pod
        else:
            live = pod.ended is None and pod.phase not in {"Succeeded", "Failed"}
            unneeded = live and pod.name not in needed
        if not pod.deleting and (pod.run_id not in kept or unneeded):
            yield DeletePod(pod.name, pod.uid)
    for config_map in config_maps:
        if config_map.run_id not in kept:
            yield DeleteConfigMap(config_map.name, config_map.uid)


def _needed(run: RunStatus) -> Iterator[str]:
    if run.result is not None:
        return
    for step in (run.resolve, run.publish):
        if step and step.pod and step.finished_at is None:
            yield step.pod
    for entry in run.platforms:
        if entry.pod and entry.phase in {Phase.PENDING, Phase.RUNNING} and entry.reason is not Reason.RETRYING:
            yield entry.pod
