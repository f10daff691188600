"""What runs inside the pods of a run: resolve, build, publish.

A step reads its mounts, does one thing, prints a log for people and leaves its result in the termination message.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .mounts import Mounts
from .termination import conclude


def main(argv: Sequence[str], *, root: Path = Path("/")) -> int:
    """Run the step that `argv` names and return its exit code; `root` is where the mounts begin."""
    arguments = _parser().parse_args(argv)
    mounts = Mounts(root)
    # Each step imports only what it needs: pods in a row are what a run waits for.
    match arguments.step:
        case "resolve":
            from .resolve import resolve  # noqa: PLC0415

            return conclude(mounts, lambda: resolve(mounts))
        case "build":
            from .build import build  # noqa: PLC0415

            return conclude(
                mounts,
                lambda: build(mounts, arguments.platform, arguments.cache_to, arguments.cache_from),
            )
        case _:
            from .publish import publish  # noqa: PLC0415

            return conclude(mounts, lambda: publish(mounts, arguments.tag))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiarchbuild step", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("resolve", help="find the commit behind the ref")
    build = steps.add_parser("build", help="build with the BuildKit beside this container, push by digest")
    build.add_argument("--platform", action="append", required=True, help="platform to build, such as linux/arm64")
    build.add_argument("--cache-to", help="reference that the cache is written to")
    build.add_argument("--cache-from", action="append", default=[], help="reference that the cache is read from")
    publish = steps.add_parser("publish", help="push the index over what was built, verify it, move the tags")
    publish.add_argument("--tag", action="append", default=[], help="tag that moves to the index")
    return parser
