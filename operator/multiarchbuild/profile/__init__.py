"""What runs in the optional DaemonSet that gives nodes the seccomp profile of rootless builders.

    lay      root, with the kubelet's folder of profiles: writes the profile there, and again when it has changed
    label    runs with that profile and no rights: makes a user namespace, and labels its node by the outcome

Pods that use it are admitted in namespaces that enforce Pod Security `baseline`.
"""

import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType


def main(argv: Sequence[str]) -> int:
    """Run what `argv` names until SIGTERM; return the exit code."""
    arguments = _parser().parse_args(argv)
    stop = threading.Event()

    def stopped(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    if arguments.command == "lay":
        from .lay import lay  # noqa: PLC0415

        return lay(arguments.folder, arguments.every, stop)
    from .label import label  # noqa: PLC0415

    return label(arguments.node, arguments.every, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiarchbuild profile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    lay = commands.add_parser("lay", help="write the profile")
    lay.add_argument("--folder", required=True, type=Path, help="the kubelet's folder of seccomp profiles")
    label = commands.add_parser("label", help="verify, and label the node")
    label.add_argument("--node", required=True, help="name of the node")
    for command in (lay, label):
        command.add_argument("--every", type=float, default=30, metavar="SECONDS", help="between two verifications")
    return parser
