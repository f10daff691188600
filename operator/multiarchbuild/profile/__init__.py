"""What runs in the optional DaemonSets that give nodes the profiles of rootless builders.

    lay      root, with the kubelet's folder of profiles: writes the seccomp profile, and again when it has changed
    load     root with CAP_MAC_ADMIN, on nodes with AppArmor: loads the AppArmor profile, and again when it is gone
    label    runs with the profiles and no rights: makes a user namespace, and labels its node by the outcome

Pods that use them are admitted in namespaces that enforce Pod Security `baseline`.
"""

import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from multiarchbuild.nodes.labeller import Labeller, add_arguments

from .apparmor import Use


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
    if arguments.command == "load":
        from .load import load  # noqa: PLC0415

        return load(arguments.every, stop)
    from multiarchbuild.nodes.kubernetes import Api  # noqa: PLC0415

    from .label import label  # noqa: PLC0415

    return label(Labeller.of(arguments), stop, Api(), arguments.app_armor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiarchbuild profile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    lay = commands.add_parser("lay", help="write the seccomp profile")
    lay.add_argument("--folder", required=True, type=Path, help="the kubelet's folder of seccomp profiles")
    load = commands.add_parser("load", help="load the AppArmor profile")
    label = commands.add_parser("label", help="verify, and label the node")
    add_arguments(label)
    label.add_argument("--app-armor", required=True, type=Use, choices=Use, help="where the AppArmor profile is used")
    for command in (lay, load, label):
        command.add_argument("--every", type=float, default=30, metavar="SECONDS", help="between two verifications")
    return parser
