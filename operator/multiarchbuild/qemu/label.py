"""The part without privileges: what runs here runs in every container of the node."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from multiarchbuild.api.nodes import qemu_label

from .architectures import Architecture
from .kubernetes import Api, ApiError
from .log import say
from .probe import failure

FIRST_SECONDS: Final = 1.0
"""To the next verification after one that failed; each further one takes twice as long, up to `every`."""

Labels = Mapping[str, str | None]


def label(wanted: Sequence[Architecture], node: str, every: float, stop: threading.Event) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Args:
        wanted: Architectures; native ones are skipped.
        node: Name of the node.
        every: Seconds between two verifications.
        stop: Ends it.
    """
    api = Api()
    foreign = [architecture for architecture in wanted if not architecture.native]
    pause, said = FIRST_SECONDS, ""
    while not stop.is_set():
        labels, failures = verified(foreign, failure)
        state = "; ".join(f"{name} does not run: {why}" for name, why in failures.items()) or "all verified"
        # Written each time: the pod that this one replaces takes its labels back when it ends.
        written = _write(api, node, labels)
        if state != said:
            said = state
            say(state)
        pause = every if written and not failures else min(every, 2 * pause)
        stop.wait(pause)
    removed: Labels = {qemu_label(architecture.name): None for architecture in foreign}
    return 0 if _write(api, node, removed) else 1


def verified(
    architectures: Sequence[Architecture], check: Callable[[Architecture], str]
) -> tuple[Labels, Mapping[str, str]]:
    """Return the labels of a node, and why each architecture that does not run there does not."""
    failures = {entry.name: why for entry in architectures if (why := check(entry))}
    labels = {qemu_label(entry.name): None if entry.name in failures else "true" for entry in architectures}
    return labels, failures


def _write(api: Api, node: str, labels: Labels) -> bool:
    try:
        api.label_node(node, labels)
    except ApiError as error:
        say(f"error: the node was not labelled: {error}")
        return False
    return True
