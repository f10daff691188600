"""The part without rights on the node: it runs with the profiles, and labels the node when that is enough."""

import threading

from multiarchbuild.api.nodes import APP_ARMOR_LABEL, APP_ARMOR_PROFILE_LABEL, PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.nodes.kubernetes import Api
from multiarchbuild.nodes.label import Labels, keep_labelled
from multiarchbuild.nodes.labeller import Labeller
from multiarchbuild.nodes.log import say

from . import apparmor
from .probe import failure

_NONE = "this node has no AppArmor: its builders have the seccomp profile alone"
_UNUSED = (
    "the kernel of this node has AppArmor, but the container runtime does not use it: "
    "its builders have the seccomp profile alone"
)
_HINT = (
    "this node has AppArmor, whose profile for containers forbids mounts: "
    "builders need the one that profile.appArmor of the chart loads"
)


def label(labeller: Labeller, stop: threading.Event, api: Api, app_armor: apparmor.Use) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Args:
        labeller: This pod.
        stop: Ends it.
        api: The API server.
        app_armor: Where the AppArmor profile is used.
    """
    if app_armor is apparmor.Use.HERE:
        return keep_labelled(labeller, with_both, {APP_ARMOR_PROFILE_LABEL: None}, stop, api)
    if not _uses_app_armor():
        say(_UNUSED if apparmor.is_enabled() else _NONE)
    stale: Labels = {APP_ARMOR_PROFILE_LABEL: None} if app_armor is apparmor.Use.NOWHERE else {}

    def verify() -> tuple[Labels, str]:
        labels, wrong = with_seccomp()
        return {**labels, **stale}, wrong

    return keep_labelled(labeller, verify, {PROFILE_LABEL: None, APP_ARMOR_LABEL: None, **stale}, stop, api)


def with_seccomp() -> tuple[Labels, str]:
    """Return the labels of a node whose builders name no AppArmor profile, and what is wrong."""
    why, used = failure(), _uses_app_armor()
    labels = {PROFILE_LABEL: None if why else PROFILE_VERSION, APP_ARMOR_LABEL: "true" if used else None}
    return labels, f"{why}. {_HINT}" if why and used else why


def with_both() -> tuple[Labels, str]:
    """Return the label of a node whose builders have both profiles, and what is wrong."""
    why = apparmor.not_confined() or failure()
    return {APP_ARMOR_PROFILE_LABEL: None if why else PROFILE_VERSION}, why


def _uses_app_armor() -> bool:
    """Return whether this node's runtime confines by AppArmor: it does so with a container that asks for no profile.

    One that does not, though the kernel could, refuses containers that name a profile.
    """
    return apparmor.is_enabled() and apparmor.is_confined(apparmor.current())
