"""What a step was started too early to know: the operator writes it into an annotation of the step's pod."""

from collections.abc import Callable

from multiarchbuild.api import mounts as paths

from .changes import Changes
from .log import say
from .mounts import Mounts

_MEANWHILE = 0.1
"""Seconds between two calls of what is done meanwhile."""


def handed_over(mounts: Mounts, name: str, what: str, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Return the text of the file `name` of POD_INFO once there is one; `what` names it in the log.

    `meanwhile` is called while it waits and may raise what makes waiting useless.
    """
    folder = mounts.at(paths.POD_INFO)
    with Changes(folder) as changes:
        if not (folder / name).read_text():
            say(f"waiting for {what}")
        while not (text := (folder / name).read_text()):
            meanwhile()
            changes.wait(_MEANWHILE)
    return text
