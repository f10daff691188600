"""When a build step has to have said how it ended: shortly before the kubelet, or the operator, ends it.

The kubelet counts activeDeadlineSeconds from when it took the pod, the operator the run's time from its own start,
which is earlier where the pod has waited for a node.
"""

import os
import time
from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api import mounts as paths

from .mounts import Mounts

_MARGIN = 5.0
_PART = 0.1
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment until which a step may work, by the monotonic clock; without one it has all the time."""

    at: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long that still is; never negative."""
        return None if self.at is None else max(self.at - time.monotonic(), 0.0)


def deadline(mounts: Mounts, seconds: int | None, until: datetime | None) -> Deadline:
    """Return when a step has to end whose pod may take `seconds` and whose run ends at `until`."""
    if seconds is None:
        return Deadline()
    now = time.time()
    left = seconds_left(seconds, until.timestamp() if until else None, began=_pod_began(mounts, now), now=now)
    return Deadline(time.monotonic() + left)


def deadline_in(seconds: int, until: datetime) -> Deadline:
    """Return when a build has to end that is asked for now, may take `seconds` and whose run ends at `until`."""
    now = time.time()
    return Deadline(time.monotonic() + seconds_left(seconds, until.timestamp(), began=now, now=now))


def seconds_left(seconds: float, until: float | None, *, began: float, now: float) -> float:
    """Return the seconds that a pod which began at `began` has left at `now`, less a margin.

    All but `seconds` are seconds since the epoch. `until` is by the operator's clock: where that is over by the node's
    clock, the clocks differ, and it says nothing.
    """
    own = began + seconds - now
    shared = until - now if until is not None else own
    left = min(own, shared) if shared > 0 else own
    return max(left - min(_MARGIN, _PART * seconds), _LEAST)


def _pod_began(mounts: Mounts, now: float) -> float:
    """Return when the kubelet wrote the pod's ConfigMap: right after it took the pod, before it pulled any image."""
    began = os.lstat(mounts.at(paths.INPUTS) / paths.INPUTS_FILE).st_mtime
    return min(began, now)
