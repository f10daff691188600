"""Labels of nodes that placement looks at and DaemonSets of the chart set."""

from typing import Final

QEMU_PREFIX: Final = "multiarch.build/qemu-"


def qemu_label(architecture: str) -> str:
    """Return the label of nodes whose kernel runs programs of `architecture` by QEMU (binfmt_misc)."""
    return f"{QEMU_PREFIX}{architecture}"


def verified_by(label: str) -> str:
    """Return the annotation of a node with the uid of the pod that answers for a label of a DaemonSet."""
    return f"{label}-verified-by"


PROFILE_LABEL: Final = "multiarch.build/rootless-profile"
"""Label of nodes on which rootless builders run with the seccomp profile; its value is the profile's version."""
PROFILE_VERSION: Final = "1"
"""Version of both profiles: another one with any change of one, so that what runs keeps what it was started with."""
PROFILE_FILE: Final = f"multiarchbuild/rootless-{PROFILE_VERSION}.json"
"""The profile, below the kubelet's folder `seccomp`, as `localhostProfile` of pods names it."""

APP_ARMOR_LABEL: Final = "multiarch.build/app-armor"
"""Label of nodes whose container runtime confines by AppArmor; its value is true."""
APP_ARMOR_PROFILE_LABEL: Final = "multiarch.build/rootless-apparmor"
"""Label of nodes on which they run with both profiles, seccomp and AppArmor; its value is their version."""
APP_ARMOR_PROFILE: Final = f"multiarchbuild-rootless-{PROFILE_VERSION}"
"""The AppArmor profile, as the kernel and `localhostProfile` of pods name it."""
