"""Debian packages on the machine itself: installed when this runs as root, else named in one error."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from tests.cluster.build.errors import BuildError

BUILD_PACKAGES = ("apt", "arch-test", "dpkg", "gpg", "mmdebstrap", "qemu-user-static", "util-linux")
"""What making the images needs; the node package manager is added where no ``npm`` is on PATH.

mmdebstrap only recommends arch-test, but refuses to make a system of another architecture without it.
"""

_INSTALL_SECONDS = 600


def missing(names: Iterable[str]) -> list[str]:
    """Return those of the packages that are not installed. Raises BuildError where there is no dpkg."""
    wanted = sorted(set(names))
    if shutil.which("dpkg-query") is None:
        raise BuildError("This needs a Debian system: there is no dpkg-query on PATH.")
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def ensure(names: Iterable[str]) -> None:
    """Install those of the packages that are missing.

    Raises BuildError naming all of them when this does not run as root or when apt fails.
    """
    wanted = missing(names)
    if not wanted:
        return
    command = f"apt-get install {' '.join(wanted)}"
    if os.geteuid() != 0:
        raise BuildError(f"Debian packages are missing: {', '.join(wanted)}. Run as root: {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *wanted]):
        done = subprocess.run(
            ["apt-get", *step],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"Installing Debian packages failed ({command}):\n{done.stderr.strip()[-2000:]}")
