"""kubectl-mab: says what it needs where that is missing. Any Python from 3.7 on must be able to read this file."""

from __future__ import annotations

import sys

NEEDS: list[str] = []
WHEEL = ""
# The build writes both: what pip has to install, and the URL of the wheel of the same version.


def missing() -> list[str]:
    """Return the packages that are not installed, or are too old."""
    from importlib import metadata  # noqa: PLC0415 - Python 3.7 has none

    found = []
    for requirement in NEEDS:
        name, _, least = requirement.partition(">=")
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(requirement)
            continue
        if numbers(version) < numbers(least):
            found.append(requirement)
    return found


def numbers(version: str) -> list[int]:
    """Return the numbers that a version begins with."""
    result: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        result.append(int(part))
    return result


def start() -> int:
    """Run the command line, or say what it needs."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the check is what this is about
        sys.stderr.write(f"error: kubectl-mab needs Python 3.11 or newer, this is {sys.version.split()[0]}\n")
        return 2
    lacking = missing()
    if lacking:
        quoted = " ".join(f"'{each}'" for each in lacking)
        sys.stderr.write(
            f"error: kubectl-mab needs Python packages that {sys.executable} does not have. Either install them:\n"
            f"  {sys.executable} -m pip install {quoted}\n"
            "or install kubectl-mab in an environment of its own instead:\n"
            f"  pipx install {WHEEL}\n"
        )
        return 2
    from multiarchbuild.cli import main  # noqa: PLC0415 - not before it is known that it can be imported

    return main()


if __name__ == "__main__":
    sys.exit(start())
