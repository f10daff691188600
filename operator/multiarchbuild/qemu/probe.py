"""The proof: a program of another architecture is run."""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from .architectures import Architecture

ARGUMENTS: Final = ("one", "two")
EXPECTED: Final = 40 + 1 + len(ARGUMENTS)
"""Exit code of the program: it counts its own name."""
SECONDS: Final = 20.0
"""Time for one run; it takes some hundredths of a second."""


def failure(architecture: Architecture) -> str:
    """Return why a program of the architecture does not run here; empty when it does."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, f"exit-{architecture.name}")
        program.write_bytes(architecture.program())
        program.chmod(0o755)
        try:
            done = subprocess.run(  # noqa: S603 - a program of our own
                [program, *ARGUMENTS], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except OSError as error:
            return f"{error.strerror}: no handler for it, or one whose QEMU is not to be found from containers"
        except subprocess.TimeoutExpired:
            return f"it did not end within {SECONDS:.0f} s"
    if done.returncode == EXPECTED:
        return ""
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{how} instead of exit code {EXPECTED}: {done.stderr.strip()[-200:]}".rstrip(": ")
