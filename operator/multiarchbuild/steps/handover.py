"""What a step was started too early to know: the operator writes it into an annotation of the step's pod."""

import time
from collections.abc import Callable

from multiarchbuild.api import mounts as paths

from .log import say
from .mounts import Mounts

_POLL = 0.02
"""Seconds between two looks at a file that the kubelet writes."""


def handed_over(mounts: Mounts, name: str, what: str, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Return the text of the file `name` of POD_INFO once there is one; `what` names it in the log.

    `meanwhile` is called while it waits and may raise what makes waiting useless.
    """
    file = mounts.at(paths.POD_INFO) / name
    if not file.read_text():
        say(f"waiting for {what}")
    while not (text := file.read_text()):
        meanwhile()
        time.sleep(_POLL)
    return text
