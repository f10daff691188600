"""The buildkitd beside the step."""

import socket
import time
from pathlib import Path

from multiarchbuild.api.reasons import Reason

from .errors import StepError

_POLL = 0.02
"""Seconds; a connection to a socket that nobody listens on fails at once."""


def await_daemon(path: Path, *, seconds: float = 60, on_volume: bool = False) -> None:
    """Return once something listens on the socket `path`; `on_volume`: buildkitd has the state of earlier builds.

    Raises:
        StepError: nothing does after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not _listens(path):
        if time.monotonic() > deadline and on_volume:
            raise StepError(
                Reason.CACHE_VOLUME_FAILED,
                f"buildkitd did not start within {seconds:.0f} s with what the volume of the cache holds; the log of "
                "the pod's container `buildkitd` says why. The next try has no volume, and this one is deleted: the "
                "next run gets a new one.",
            )
        if time.monotonic() > deadline:
            raise StepError(
                Reason.BUILDER_UNSUPPORTED,
                f"buildkitd did not start within {seconds:.0f} s. The log of the pod's container `buildkitd` says why. "
                "Rootless BuildKit needs a node that allows unprivileged user namespaces (sysctl "
                "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0); where none does, the "
                "operator's policy can set isolation: UserNamespace, which needs a runtime that makes one for the pod, "
                "or Privileged.",
            )
        time.sleep(_POLL)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True
