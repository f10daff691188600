"""What runs in the optional DaemonSet that makes nodes run programs of other architectures.

    register    privileged: registers QEMU in the kernel's binfmt_misc, and takes back at its end what it registered
    label       without privileges: runs a program of each architecture, and labels its node by the outcome
    remove      before the chart goes: ends the DaemonSet while its pods may still take their labels back

It needs little memory, because it runs on every node: nothing here imports pydantic or the Kubernetes client.
"""

import argparse
import signal
import threading
from collections.abc import Sequence
from types import FrameType

from multiarchbuild.nodes.labeller import Labeller, add_arguments

from .architectures import ARCHITECTURES


def main(argv: Sequence[str]) -> int:
    """Run what `argv` names until SIGTERM; return the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "remove":
        from .remove import remove  # noqa: PLC0415

        return remove(arguments.namespace, arguments.daemonset, arguments.timeout)
    stop = threading.Event()

    def stopped(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    wanted = tuple(ARCHITECTURES[name] for name in arguments.architectures)
    if arguments.command == "register":
        from .register import register  # noqa: PLC0415

        return register(wanted, arguments.id, arguments.every, stop)
    from multiarchbuild.nodes.kubernetes import Api  # noqa: PLC0415

    from .label import label  # noqa: PLC0415

    return label(wanted, Labeller.of(arguments), stop, Api())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiarchbuild qemu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    register = commands.add_parser("register", help="register QEMU in binfmt_misc")
    register.add_argument("--id", required=True, help="what tells this pod's handlers from those of others: its uid")
    label = commands.add_parser("label", help="verify, and label the node")
    add_arguments(label)
    for command in (register, label):
        command.add_argument("--every", type=float, default=30, metavar="SECONDS", help="between two verifications")
        command.add_argument("architectures", nargs="+", choices=ARCHITECTURES, metavar="ARCHITECTURE")
    remove = commands.add_parser("remove", help="delete the DaemonSet and wait until its pods have ended")
    remove.add_argument("--namespace", required=True)
    remove.add_argument("--daemonset", required=True)
    remove.add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    return parser
