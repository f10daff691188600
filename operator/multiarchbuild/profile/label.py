"""The part without rights on the node: it runs with the profile, and labels the node when that is enough."""

import threading

from multiarchbuild.api.nodes import PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.nodes.label import Labels, keep_labelled

from .probe import failure


def label(node: str, every: float, stop: threading.Event) -> int:
    """Verify and label the node until `stop`, then remove the label; return the exit code."""

    def verify() -> tuple[Labels, str]:
        why = failure()
        return {PROFILE_LABEL: None if why else PROFILE_VERSION}, why

    return keep_labelled(node, verify, {PROFILE_LABEL: None}, every, stop)
