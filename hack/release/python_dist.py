"""Wheel and sdist."""

import os
import subprocess
import sys

from .errors import ReleaseError
from .release import Release


def build(release: Release) -> list[str]:
    """Write wheel and sdist into the release; return their names.

    Raises:
        ReleaseError: hatchling failed.
    """
    before = {path.name for path in release.out.iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(release.out)],
        cwd=release.tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(release.epoch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"hatchling failed: {done.stderr.strip()}")
    return sorted({path.name for path in release.out.iterdir()} - before)
