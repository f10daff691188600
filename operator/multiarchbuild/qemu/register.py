"""The privileged part: keeps QEMU registered, and does nothing else."""

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from multiarchbuild.nodes.log import say

from .architectures import Architecture
from .binfmt import Binfmt, BinfmtError
from .probe import failure

EMULATORS: Final = Path("/usr/lib/multiarchbuild/qemu")
"""Where the image has QEMU: where no distribution has it, so that handlers of others do not find it by chance."""


def register(wanted: Sequence[Architecture], owner: str, every: float, stop: threading.Event) -> int:
    """Keep `wanted` registered until `stop`, then take back what was registered; return the exit code.

    Args:
        wanted: Architectures; native ones are skipped.
        owner: What the handlers' names end with.
        every: Seconds between two looks.
        stop: Ends it.
    """
    folder = Path(tempfile.mkdtemp(prefix="binfmt-"))
    try:
        binfmt = Binfmt.mounted(folder, owner)
    except BinfmtError as error:
        say(f"error: {error}")
        return 1
    said: dict[str, str] = {}
    try:
        while True:
            for architecture in wanted:
                state = keep(binfmt, architecture, EMULATORS)
                if said.get(architecture.name) != state:
                    said[architecture.name] = state
                    say(f"{architecture.name}: {state}")
            if stop.wait(every):
                return 0
    finally:
        for name in binfmt.remove():
            say(f"{name}: removed")


def keep(binfmt: Binfmt, architecture: Architecture, emulators: Path) -> str:
    """Register one architecture where that is needed; return how it is with it."""
    if architecture.native:
        return "native, nothing to do"
    if binfmt.registered(architecture):
        return "registered"
    # Another pod's handler goes with that pod, for instance when this pod replaces it: it is no reason to do without.
    if not binfmt.registered_by_others(architecture) and not failure(architecture):
        return "runs already, by a handler that somebody else has registered"
    try:
        binfmt.register(architecture, emulators / f"qemu-{architecture.emulator}")
    except BinfmtError as error:
        return f"error: {error}"
    return "registered"
