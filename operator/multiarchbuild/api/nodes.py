"""Labels of nodes that placement looks at and the QEMU DaemonSet sets."""

from typing import Final

QEMU_PREFIX: Final = "multiarch.build/qemu-"


def qemu_label(architecture: str) -> str:
    """Return the label of nodes whose kernel runs programs of `architecture` by QEMU (binfmt_misc)."""
    return f"{QEMU_PREFIX}{architecture}"
