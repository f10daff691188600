"""The part without rights on the node: it runs with the profiles, and labels the node when that is enough."""

import threading

from multiarchbuild.api.nodes import APP_ARMOR_LABEL, APP_ARMOR_PROFILE_LABEL, PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.nodes.label import Labels, keep_labelled
from multiarchbuild.nodes.log import say

from . import apparmor
from .probe import failure

_NONE = "this node has no AppArmor: its builders have the seccomp profile alone"
_HINT = (
    "this node has AppArmor, whose profile for containers forbids mounts: builders need profile.appArmor of the chart"
)


def label(node: str, every: float, stop: threading.Event, *, app_armor: bool) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Args:
        node: Name of the node.
        every: Seconds between two verifications.
        stop: Ends it.
        app_armor: Whether it runs with the AppArmor profile too. Without it, it says whether the node has AppArmor.
    """
    if app_armor:
        return keep_labelled(node, with_both, {APP_ARMOR_PROFILE_LABEL: None}, every, stop)
    if not apparmor.is_enabled():
        say(_NONE)
    return keep_labelled(node, with_seccomp, {PROFILE_LABEL: None, APP_ARMOR_LABEL: None}, every, stop)


def with_seccomp() -> tuple[Labels, str]:
    """Return the labels of a node whose builders name no AppArmor profile, and what is wrong."""
    why, enabled = failure(), apparmor.is_enabled()
    labels = {PROFILE_LABEL: None if why else PROFILE_VERSION, APP_ARMOR_LABEL: "true" if enabled else None}
    return labels, f"{why}. {_HINT}" if why and enabled else why


def with_both() -> tuple[Labels, str]:
    """Return the label of a node whose builders have both profiles, and what is wrong."""
    why = apparmor.not_confined() or failure()
    return {APP_ARMOR_PROFILE_LABEL: None if why else PROFILE_VERSION}, why
