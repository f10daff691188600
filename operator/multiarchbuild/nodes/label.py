"""Labels that say what a node can do, for as long as it can."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from multiarchbuild.api.nodes import verified_by

from .kubernetes import Api, ApiError, Values
from .labeller import Labeller
from .log import say

FIRST_SECONDS: Final = 1.0
"""To the next verification after one that failed; each further one takes twice as long, up to `every`."""

Labels = Values
"""Labels of a node; None removes one."""


def keep_labelled(
    labeller: Labeller, verify: Callable[[], tuple[Labels, str]], removed: Labels, stop: threading.Event, api: Api
) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Labels that a later pod has verified since are that pod's: they are neither written nor removed.

    Args:
        labeller: This pod.
        verify: Returns the labels, and what is wrong, or nothing.
        removed: Labels at the end.
        stop: Ends it.
        api: The API server.
    """
    claim = _Claim(api, labeller)
    retry, said = min(labeller.every, FIRST_SECONDS), ""
    while not stop.is_set():
        try:
            labels, wrong = verify()
        except Exception as error:  # noqa: BLE001 - what can't be verified is not true
            labels, wrong = removed, f"not verified: {type(error).__name__}: {error}"
        if stop.is_set():
            break  # a verification that was slow must not write what is removed now
        try:
            # Written each time: a node that was registered again has lost its labels.
            if others := claim.write(labels):
                later = f"a later pod has verified since, and answers for {', '.join(others)}"
                wrong = f"{wrong}; {later}" if wrong else later
            written = True
        except ApiError as error:
            say(f"error: the node was not labelled: {error}")
            written = False
        state = wrong or "all verified"
        if state != said:
            said = state
            say(state)
        if written and not wrong:
            pause, retry = labeller.every, min(labeller.every, FIRST_SECONDS)
        else:
            pause, retry = retry, min(labeller.every, 2 * retry)
        stop.wait(pause)
    try:
        claim.give_up(removed)
    except ApiError as error:
        say(f"error: the labels of the node were not removed: {error}")
        return 1
    return 0


class _Claim:
    """Which pod answers for which label: an annotation of the node beside each label has the pod's uid.

    In a rollout two pods of a DaemonSet are on a node. The later one takes the labels over with its first write; from
    then on the earlier one finds its uid replaced. Labels that the later one does not know stay with the earlier one.
    """

    def __init__(self, api: Api, labeller: Labeller) -> None:
        self._api, self._labeller = api, labeller

    def write(self, labels: Labels) -> Sequence[str]:
        """Write labels, and return those that another pod answers for, which were not written. Raises `ApiError`."""
        pod, started = self._labeller.pod, self._labeller.started
        if started.exists():
            # None: a later pod has ended, and has left them to this one; or the node was registered again.
            return self._write(labels, (pod, None), pod)
        self._api.label_node(self._labeller.node, labels, {verified_by(key): pod for key in labels})
        started.touch()
        return ()

    def give_up(self, removed: Labels) -> None:
        """Remove the labels that this pod still answers for. Raises `ApiError`."""
        self._write(removed, (self._labeller.pod,), None)

    def _write(self, labels: Labels, holders: Sequence[str | None], holder: str | None) -> Sequence[str]:
        """Write the labels that one of `holders` answers for, and `holder` afterwards; return the others."""

        def written(some: Labels, before: str | None) -> bool:
            names = [verified_by(key) for key in some]
            are, become = dict.fromkeys(names, before), dict.fromkeys(names, holder)
            return self._api.label_node_where(self._labeller.node, are, some, become)

        if written(labels, self._labeller.pod):
            return ()
        return [key for key, value in labels.items() if not any(written({key: value}, before) for before in holders)]
