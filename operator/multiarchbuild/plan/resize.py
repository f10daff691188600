"""What a kept builder requests of its node: little while it waits, and while it builds what it was created with.

Requests are changed in place (KEP-1287, subresource `pods/resize`). The QoS class of a pod must not change, so limits
stay as they are, and a pod whose requests are its limits keeps them, as does one that Kueue has admitted.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal

from pydantic import TypeAdapter, ValidationError

from .actions import Resize
from .children import Pod, Requests
from .policy import IdleRequests
from .quantities import quantity

_WRITTEN = TypeAdapter(dict[str, dict[str, str]])


def resizes(
    pods: Sequence[Pod], idle: IdleRequests | None, *, waiting: Collection[str], building: Collection[str]
) -> Iterator[Resize]:
    """Yield what changes the requests of kept builders.

    Args:
        pods: Kept builders that go on.
        idle: What one requests while it waits; None where it keeps what it has.
        waiting: Names of those that wait for work, or are told to.
        building: Names of those that are handed a build now.
    """
    for pod in pods:
        lowers = pod.name in waiting and pod.name not in building
        if lowers:
            # Kueue ends a running pod whose requests are no longer those that it has admitted.
            keeps = pod.guaranteed or pod.queued
            wanted = pod.requests if idle is None or keeps else _lowered(pod.requests, idle)
        else:
            wanted = _read(pod.full_requests) or pod.requests
        if wanted != pod.requests:
            yield Resize(pod.name, pod.uid, wanted, lowers=lowers)


def applies(action: Resize, pod: Pod | None) -> bool:
    """Return whether `action` may be performed on `pod` as it is now.

    Requests are lowered only where those of a build are noted: the request before, which does so, may have failed.
    """
    if not action.lowers:
        return True
    return pod is not None and pod.uid == action.uid and pod.idle and bool(pod.full_requests)


def written(requests: Requests) -> str:
    """Return `requests` as the annotation that keeps them."""
    return json.dumps({container: {"cpu": cpu, "memory": memory} for container, cpu, memory in requests})


def _read(text: str) -> Requests | None:
    """Return what `written` has written, None where it has not."""
    try:
        found = _WRITTEN.validate_json(text)
    except ValidationError:
        return None
    return tuple((container, each.get("cpu", ""), each.get("memory", "")) for container, each in found.items())


def _lowered(requests: Requests, idle: IdleRequests) -> Requests:
    """Return no more for each than an equal share of `idle`. What is not requested stays so."""
    cpu, memory = _share(idle.cpu, len(requests)), _share(idle.memory, len(requests))
    return tuple(
        (name, _least(own_cpu, f"{int(cpu * 1000)}m"), _least(own_memory, str(int(memory))))
        for name, own_cpu, own_memory in requests
    )


def _share(amount: str | int, containers: int) -> Decimal:
    found = quantity(amount)
    assert found is not None, "the policy takes quantities only"
    return found / containers


def _least(own: str, most: str) -> str:
    known, bound = quantity(own), quantity(most)
    return most if known is not None and bound is not None and known > bound else own
