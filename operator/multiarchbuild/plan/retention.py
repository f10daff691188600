"""Which children go: those that nobody reads any more."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from multiarchbuild.api.spec import History
from multiarchbuild.api.status import HistoryEntry, LookStatus, Phase, Result, RunStatus

from .actions import DeleteConfigMap, DeletePod
from .attempts import awaits_retry
from .children import ConfigMap, Pod, Role

LINGER = timedelta(seconds=30)
"""How long a pod may run on when its step has ended: the kubelet stops our own sidecar within two seconds."""


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
    checks: Sequence[LookStatus | None] = (),
    *,
    now: datetime,
    stay: frozenset[str] = frozenset(),
) -> Iterator[DeletePod | DeleteConfigMap]:
    """Yield what goes. Pods of kept runs stay for their logs; what still runs stays only while its run needs it.

    A pod that only looked whether the source has changed goes when it has ended, and one that lingers goes too. Of
    builders that wait for work those stay that `stay` names, with what they mount.
    """
    kept = {entry.id for entry in history} | ({run.id} if run else set())
    needed = {*_needed(run), *_concluded(run)} if run else set()
    looking = {check.pod for check in checks if check is not None}
    mounted = set[str]()
    for pod in pods:
        if pod.role in {Role.CHECK, Role.CHECK_BASES}:
            unneeded = pod.name not in looking
        else:
            unneeded = not pod.concluded and pod.name not in needed
        lingers = (ends_at := overdue_at(pod)) is not None and now >= ends_at
        goes = pod.name not in stay if _waits(pod) else pod.run_id not in kept or unneeded or lingers
        if goes and not pod.deleting:
            yield DeletePod(pod.name, pod.uid)
        elif pod.template and not pod.deleting and not _has_ended(pod):
            mounted.add(pod.inputs)
    for config_map in config_maps:
        if config_map.run_id not in kept and config_map.name not in mounted:
            yield DeleteConfigMap(config_map.name, config_map.uid)


def ended(pods: tuple[Pod, ...], held: frozenset[str]) -> Iterator[DeletePod]:
    """Yield the pods among `held` that have ended: a claim that is deleted stays for as long as any pod names it.

    Their logs go with them; what they failed for is in status.
    """
    for pod in pods:
        if pod.name in held and not pod.deleting and pod.phase in {"Succeeded", "Failed"}:
            yield DeletePod(pod.name, pod.uid)


def _waits(pod: Pod) -> bool:
    return pod.idle and not _has_ended(pod)


def _has_ended(pod: Pod) -> bool:
    return pod.ended is not None or pod.phase in {"Succeeded", "Failed"}


def overdue_at(pod: Pod) -> datetime | None:
    """Return from when on `pod` lingers: its step has ended, and a container that is not ours keeps it running.

    It holds what the builder requested, up to its deadline, and its log would be all that it is good for.
    """
    if pod.ended is None or pod.phase in {"Succeeded", "Failed"} or pod.deleting:
        return None
    return (pod.ended.reported_at or pod.ended.finished_at or pod.created_at) + LINGER


def _needed(run: RunStatus) -> Iterator[str]:
    if run.result is not None:
        return
    for step in (run.resolve, run.publish):
        if step and step.pod and step.finished_at is None:
            yield step.pod
    for entry in run.platforms:
        if entry.pod and entry.phase in {Phase.PENDING, Phase.RUNNING} and not awaits_retry(entry):
            yield entry.pod


def _concluded(run: RunStatus) -> Iterator[str]:
    """Yield the pods whose success is known: they end by themselves, in a moment, and stay for their logs."""
    for step in (run.resolve, run.publish):
        if step and step.pod and step.finished_at is not None and step.reason is None:
            yield step.pod
    for entry in run.platforms:
        if entry.pod and entry.phase is Phase.SUCCEEDED:
            yield entry.pod
