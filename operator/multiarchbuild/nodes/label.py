"""Labels that say what a node can do, for as long as it can."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from .kubernetes import Api, ApiError
from .log import say

FIRST_SECONDS: Final = 1.0
"""To the next verification after one that failed; each further one takes twice as long, up to `every`."""

Labels = Mapping[str, str | None]
"""Labels of a node; None removes one."""


def keep_labelled(
    node: str, verify: Callable[[], tuple[Labels, str]], removed: Labels, every: float, stop: threading.Event
) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Args:
        node: Name of the node.
        verify: Returns the labels, and what is wrong, or nothing.
        removed: Labels at the end.
        every: Seconds between two verifications.
        stop: Ends it.
    """
    api = Api()
    pause, said = FIRST_SECONDS, ""
    while not stop.is_set():
        try:
            labels, wrong = verify()
        except Exception as error:  # noqa: BLE001 - what can't be verified is not true
            labels, wrong = removed, f"not verified: {type(error).__name__}: {error}"
        # Written each time: the pod that this one replaces takes its labels back when it ends.
        written = _write(api, node, labels)
        state = wrong or "all verified"
        if state != said:
            said = state
            say(state)
        pause = every if written and not wrong else min(every, 2 * pause)
        stop.wait(pause)
    return 0 if _write(api, node, removed) else 1


def _write(api: Api, node: str, labels: Labels) -> bool:
    try:
        api.label_node(node, labels)
    except ApiError as error:
        say(f"error: the node was not labelled: {error}")
        return False
    return True
