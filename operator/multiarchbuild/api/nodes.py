"""Labels of nodes that placement looks at and DaemonSets of the chart set."""

from typing import Final

QEMU_PREFIX: Final = "multiarch.build/qemu-"


def qemu_label(architecture: str) -> str:
    """Return the label of nodes whose kernel runs programs of `architecture` by QEMU (binfmt_misc)."""
    return f"{QEMU_PREFIX}{architecture}"


PROFILE_LABEL: Final = "multiarch.build/rootless-profile"
"""Label of nodes that have the seccomp profile of rootless builders; its value is the profile's version."""
PROFILE_VERSION: Final = "1"
"""Version of that profile: another one with any change of it, so that what runs keeps what it was started with."""
PROFILE_FILE: Final = f"multiarchbuild/rootless-{PROFILE_VERSION}.json"
"""The profile, below the kubelet's folder `seccomp`, as `localhostProfile` of pods names it."""
