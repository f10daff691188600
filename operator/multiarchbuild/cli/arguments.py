"""The command line as data: argparse reads it, shell completion lists it."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from multiarchbuild.api.spec import Provenance

from . import errors
from .console import Format
from .view import Progress

PROGRAM: Final = "kubectl mab"
_DESCRIPTION: Final = "Multi-architecture images: build, follow, inspect."
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

Completer = str
"""What completes a value: a key of `complete.SOURCES`."""


@dataclass(slots=True)
class Command:
    """One command with its arguments."""

    name: str
    help: str
    parser: argparse.ArgumentParser
    actions: list[argparse.Action] = field(default_factory=list)
    completers: dict[str, Completer] = field(default_factory=dict)
    """By `dest`, for values that the parser has no choices for."""

    def add(self, *names: str, complete: Completer = "", **options: Any) -> None:
        """Add an argument, as argparse does."""
        action = self.parser.add_argument(*names, **options)
        self.actions.append(action)
        if complete:
            self.completers[action.dest] = complete


def seconds(text: str) -> float:
    """Return the seconds that a duration such as 90s, 30m or 1h30m means."""
    match = _DURATION.fullmatch(text)
    if not text or not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 90s, 30m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=rest).total_seconds()


def commands() -> tuple[argparse.ArgumentParser, list[Command]]:
    """Return the parser and its commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    made = []
    for name, text, define in _COMMANDS:
        own = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        command = Command(name, text, own)
        define(command)
        made.append(command)
    return parser, made


def _exit_codes() -> str:
    lines = (errors.__doc__ or "").split("\n\n")[1].splitlines()
    told = [re.sub(r"\w+Error: ", "", line) for line in lines]
    return "exit codes:\n" + "\n".join(f"  {line}" for line in told)


def _access(command: Command) -> None:
    command.add(
        "-n", "--namespace", default="", help="namespace, by default that of the context", complete="namespaces"
    )
    command.add("--context", default="", help="context of the kubeconfig", complete="contexts")
    command.add("--kubeconfig", default="", help="path of the kubeconfig", complete="files")


def _name(command: Command) -> None:
    command.add("name", metavar="NAME", help="name of the MultiArchBuild", complete="builds")


def _output(command: Command, *forms: Format) -> None:
    command.add("-o", "--output", choices=[str(form) for form in forms], help="print the result in this form")


def _following(command: Command, *, default: bool) -> None:
    command.add(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=default,
        help="follow the run to its end",
    )
    _timeout(command)
    command.add(
        "--progress",
        choices=[str(each) for each in Progress],
        default=str(Progress.AUTO),
        help="bars (tty), every line of the logs (plain) or nothing (quiet); auto: bars on a terminal, else plain",
    )


def _timeout(command: Command) -> None:
    command.add("--timeout", type=seconds, metavar="DURATION", help="how long to follow, such as 30m (exit code 124)")


def _plain_http(command: Command) -> None:
    command.add("--plain-http", action="store_true", help="the registry speaks HTTP without TLS")


def _list(command: Command) -> None:
    command.add("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    _output(command, Format.WIDE, Format.JSON, Format.YAML)
    _access(command)


def _status(command: Command) -> None:
    _name(command)
    _output(command, Format.JSON, Format.YAML)
    _following(command, default=False)
    _access(command)


def _logs(command: Command) -> None:
    _name(command)
    command.add("-f", "--follow", action="store_true", help="wait for what comes, until the run has ended")
    command.add(
        "--platform", action="append", default=[], help="only of this platform; repeatable", complete="platforms"
    )
    command.add("--run", default="", help="id of the run, by default the current or last one")
    command.add("--tail", type=int, metavar="LINES", help="only the last lines of each pod")
    _timeout(command)
    _access(command)


def _build(command: Command) -> None:
    add = command.add
    add("path", nargs="?", metavar="FOLDER", help="folder to build; .dockerignore is honoured", complete="folders")
    add(
        "-f",
        "--file",
        metavar="FILE",
        help="with FOLDER its Dockerfile, without it a MultiArchBuild in YAML or JSON (- is standard input)",
        complete="files",
    )
    add(
        "-t",
        "--tag",
        action="append",
        default=[],
        metavar="IMAGE",
        help="registry/name:tag; repeatable, one repository",
    )
    add("--platform", action="append", default=[], help="platforms, separated by commas", complete="platforms")
    add("--target", default="", metavar="STAGE", help="stage of the Dockerfile")
    add("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="value of an ARG; repeatable")
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="label of the images; repeatable")
    add("--annotation", action="append", default=[], metavar="NAME=VALUE", help="annotation of the index; repeatable")
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=CONTEXT",
        help="named context: docker-image://…, https://… or http://…; repeatable",
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID,secret=NAME/KEY",
        help="key of a Secret in the namespace, for RUN --mount=type=secret; repeatable",
    )
    add("--no-cache", action="store_true", help="build everything anew, without the registry cache")
    add("--name", default="", help="name of the MultiArchBuild, by default that of the image")
    add(
        "--registry-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="Secret in the namespace with which the builders pull and push; repeatable",
    )
    add("--signing-secret", default="", metavar="NAME", help="Secret in the namespace whose key signs the index")
    add(
        "--provenance", choices=[str(each) for each in Provenance], help="how much the provenance tells, by default min"
    )
    add("--sbom", action="store_true", help="attach an SBOM to each image")
    add(
        "--source-repository",
        default="",
        metavar="REPOSITORY",
        help="where the folder is pushed, by default the image's",
    )
    _plain_http(command)
    add("--force-conflicts", action="store_true", help="take over fields that another owner has set")
    add("--dry-run", action="store_true", help="print the resource; push and create nothing")
    _output(command, Format.JSON, Format.YAML)
    _following(command, default=True)
    _access(command)


def _rebuild(command: Command) -> None:
    _name(command)
    _output(command, Format.JSON, Format.YAML)
    _following(command, default=False)
    _access(command)


def _request(command: Command) -> None:
    _name(command)
    _access(command)


def _inspect(command: Command) -> None:
    command.add(
        "name", metavar="NAME|IMAGE", help="name of a MultiArchBuild, or an image in a registry", complete="builds"
    )
    _output(command, Format.JSON, Format.YAML)
    _plain_http(command)
    _access(command)


def _completion(command: Command) -> None:
    command.add("shell", choices=["bash", "zsh", "fish"], help="the shell")


_COMMANDS: Final[Sequence[tuple[str, str, Callable[[Command], None]]]] = (
    ("list", "list builds", _list),
    ("status", "show where a build stands: platforms, conditions, messages", _status),
    ("logs", "print the logs of a run, each line with its platform", _logs),
    ("build", "build a local folder, or apply a MultiArchBuild, and follow the run", _build),
    ("rebuild", "ask for another run", _rebuild),
    ("cancel", "end the running run", _request),
    ("suspend", "start no further runs", _request),
    ("resume", "start runs again", _request),
    ("inspect", "show what the registry has: index, images, attestations", _inspect),
    ("completion", "print the script for shell completion of kubectl-mab", _completion),
)
