"""When a pod was created, scheduled, started, ended and seen to end."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hack.target import Target

from .watch import Event

STEP = "step"


@dataclass(frozen=True)
class PodTimes:
    """Unix times of one pod, or the last of each of several.

    Attributes:
        created: The API server told of it.
        scheduled: The API server told that it has a node.
        started: The first line of the step's log. It comes when the container runs and has something to say.
        ended: The last line of the step's log.
        seen: The API server told that the step's container has ended.
    """

    created: float
    scheduled: float
    started: float
    ended: float
    seen: float


def ended(events: Iterable[Event], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the `terminated` state of the step container of those of the pods `names` where it has ended."""
    found = {}
    for event in events:
        state = _terminated(event.object)
        if state is not None and _name(event.object) in names:
            found[_name(event.object)] = state
    return found


def times(target: Target, namespace: str, events: Sequence[Event], names: Iterable[str]) -> PodTimes:
    """Return the times of the last of the pods `names`; their step containers must have ended."""
    each = [_times(events, name, _log(target, namespace, name)) for name in names]
    return PodTimes(
        created=max(pod.created for pod in each),
        scheduled=max(pod.scheduled for pod in each),
        started=max(pod.started for pod in each),
        ended=max(pod.ended for pod in each),
        seen=max(pod.seen for pod in each),
    )


def _times(events: Sequence[Event], name: str, log: str) -> PodTimes:
    def first(true: Callable[[dict[str, Any]], bool]) -> float:
        return next(event.at for event in events if _name(event.object) == name and true(event.object))

    lines = [line.partition(" ")[0] for line in log.splitlines()]
    return PodTimes(
        created=first(lambda _: True),
        scheduled=first(lambda pod: "nodeName" in pod["spec"]),
        started=datetime.fromisoformat(lines[0]).timestamp(),
        ended=datetime.fromisoformat(lines[-1]).timestamp(),
        seen=first(lambda pod: _terminated(pod) is not None),
    )


def _log(target: Target, namespace: str, name: str) -> str:
    return target.kubectl("logs", name, "--namespace", namespace, "--container", STEP, "--timestamps")


def _name(pod: dict[str, Any]) -> str:
    name: str = pod["metadata"]["name"]
    return name


def _terminated(pod: dict[str, Any]) -> dict[str, Any] | None:
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return next((entry["state"].get("terminated") for entry in statuses if entry["name"] == STEP), None)
