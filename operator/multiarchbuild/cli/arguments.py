"""The command line as data: argparse reads it, shell completion lists it."""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from multiarchbuild.api import formats
from multiarchbuild.api.provenance import Provenance

from . import errors
from .choices import Format, Progress, offered, output

PROGRAM: Final = "kubectl mab"
_ACCESS: Final = "options of kubectl"
_DESCRIPTION: Final = "Multi-architecture images: build, follow, inspect."
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

_FORMS: Final = (Format.NAME, Format.JSON, Format.YAML, Format.JSONPATH)

Completer = str
"""What completes a value: a key of `complete.SOURCES`."""


@dataclass(slots=True)
class Command:
    """One command with its arguments."""

    name: str
    help: str
    parser: argparse.ArgumentParser
    actions: list[argparse.Action] = field(default_factory=list)
    before: list[argparse.Action] = field(default_factory=list)
    """Options that may also stand before the command."""
    completers: dict[str, Completer] = field(default_factory=dict)
    """By `dest`, for values that the parser has no choices for."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """By `dest`, values to offer for those that a function parses."""

    def add(self, *names: str, complete: Completer = "", **options: Any) -> None:
        """Add an argument, as argparse does."""
        action = self.parser.add_argument(*names, **options)
        self.actions.append(action)
        if complete:
            self.completers[action.dest] = complete


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < 2**16):  # noqa: PLR2004 - digits
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write 1 to 65535, or 0 for one that is free")
    return int(text)


def seconds(text: str) -> float:
    """Return the seconds that a duration such as 90s, 30m or 1h30m means."""
    match = _DURATION.fullmatch(text)
    if not text or not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 90s, 30m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=rest).total_seconds()


def request_timeout(text: str) -> float:
    """Return the seconds of `--request-timeout`: a duration, or a number of seconds as kubectl takes it."""
    return float(text) if text.isdecimal() else seconds(text)


class _Help(argparse.RawDescriptionHelpFormatter):
    """The help of a command: on a screen, so without a list of all options before their list."""

    def __init__(self, prog: str) -> None:
        """Leave so much room for names that most of them share a line with their text."""
        super().__init__(prog, max_help_position=28)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Name the value of an option once, as Python 3.13 does: -n, --namespace NAMESPACE."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """Show the positional arguments, and that there are options."""
        named = [_positional(action) for action in actions if not action.option_strings]
        super().add_usage(usage or " ".join([self._prog, *named, "[options]"]), actions, groups, prefix)


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or "|".join(map(str, action.choices or ())))
    return f"[{name}]" if action.nargs == "?" else name


class _Parser(argparse.ArgumentParser):
    """The parser of a command, whose help leaves what all commands take to `kubectl mab --help`."""

    def format_help(self) -> str:
        """Return the help without the options that `_access` has added."""
        shown = self._action_groups
        self._action_groups = [group for group in shown if group.title != _ACCESS]
        try:
            return super().format_help()
        finally:
            self._action_groups = shown


def commands() -> tuple[argparse.ArgumentParser, list[Command]]:
    """Return the parser and its commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_exit_codes(),
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    shared = Command("", "", parser)
    _access(shared, given=True)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", prog=PROGRAM, parser_class=_Parser)
    made = []
    for name, text, define in _COMMANDS:
        own = subparsers.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=_Help, allow_abbrev=False
        )
        command = Command(name, text, own)
        define(command)
        own.epilog = _epilog(command)
        made.append(command)
    for command in made:
        command.before = shared.actions
        command.completers |= shared.completers
    return parser, made


def _epilog(command: Command) -> str:
    examples = "\n".join(f"  {PROGRAM} {command.name} {each}".rstrip() for each in _EXAMPLES[command.name])
    shared = f"\n\n{_ACCESS}: {PROGRAM} --help" if any(each.dest == "kubeconfig" for each in command.actions) else ""
    return f"examples:\n{examples}{shared}"


def _exit_codes() -> str:
    lines = (errors.__doc__ or "").split("\n\n")[1].splitlines()
    told = [re.sub(r"\w+Error: ", "", line) for line in lines]
    return "exit codes:\n" + "\n".join(f"  {line}" for line in told)


def _access(command: Command, *, given: bool = False) -> None:
    """Add what kubectl takes before and after each command; `given`: whether the parser has defaults for it.

    A command has none, so that what stands before it is not overwritten.
    """
    group = command.parser.add_argument_group(_ACCESS)

    def add(*names: str, default: Any, complete: Completer = "", **options: Any) -> None:
        action = group.add_argument(*names, default=default if given else argparse.SUPPRESS, **options)
        command.actions.append(action)
        if complete:
            command.completers[action.dest] = complete

    add(
        "-n",
        "--namespace",
        default="",
        metavar="NAME",
        help="namespace, by default that of the context",
        complete="namespaces",
    )
    add("--context", default="", help="context of the kubeconfig", complete="contexts")
    add("--kubeconfig", default="", help="path of the kubeconfig", complete="files")
    add("--as", dest="as_user", default="", metavar="USER", help="user to impersonate")
    add("--as-group", action="append", default=None, metavar="GROUP", help="group to impersonate; repeatable")
    add("--as-uid", default="", metavar="UID", help="UID to impersonate")
    add(
        "--request-timeout",
        type=request_timeout,
        default=0.0,
        metavar="TIME",
        help="limit of one request, such as 5s; 0: no limit",
    )


def _name(command: Command) -> None:
    command.add("name", metavar="NAME", help="name of the MultiArchBuild", complete="builds")


def _output(command: Command, *forms: Format) -> None:
    command.add("-o", "--output", type=output(*forms), metavar="FORMAT", help=f"one of {', '.join(offered(forms))}")
    command.values["output"] = [f"{form}=" if form is Format.JSONPATH else str(form) for form in forms]


def _following(command: Command, *, default: bool) -> None:
    command.add(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=default,
        help=f"follow the run to its end; by default {'yes' if default else 'no'}",
    )
    _timeout(command)
    command.add(
        "--progress",
        choices=[str(each) for each in Progress],
        default=str(Progress.AUTO),
        metavar="MODE",
        help="auto, tty (bars), plain (all logs) or quiet",
    )


def _timeout(command: Command) -> None:
    command.add("--timeout", type=seconds, metavar="DURATION", help="how long to follow, such as 30m (exit code 124)")


def _plain_http(command: Command) -> None:
    command.add("--plain-http", action="store_true", help="the registry speaks HTTP without TLS")


def _list(command: Command) -> None:
    command.add("-A", "--all-namespaces", action="store_true", help="list builds of all namespaces")
    command.add("-l", "--selector", default="", metavar="LABELS", help="only builds with these labels, such as team=a")
    command.add("-w", "--watch", action="store_true", help="after the list, print each change until Ctrl-C")
    _output(command, Format.WIDE, *_FORMS)
    _access(command)


def _status(command: Command) -> None:
    _name(command)
    command.add("--steps", action="store_true", help="also show each step of the last finished run")
    _plain_http(command)
    _output(command, *_FORMS)
    _following(command, default=False)
    _access(command)


def _logs(command: Command) -> None:
    _name(command)
    command.add("-f", "--follow", action="store_true", help="follow the logs until the run has ended")
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
        help="Dockerfile of FOLDER; without FOLDER a MultiArchBuild in YAML or JSON (-: standard input)",
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
        metavar="NAME=REF",
        help="named context: docker-image://…, https://… or http://…; repeatable",
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID,secret=NAME/KEY",
        help="key of a Secret in the namespace, for RUN --mount=type=secret; repeatable",
    )
    add("--no-cache", action="store_true", help="run every step again; the cache is still written")
    add("--name", default="", help="name of the build, by default that of the image")
    add(
        "--registry-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="Secret in the namespace with which the builders pull and push; repeatable",
    )
    add("--signing-secret", default="", metavar="NAME", help="Secret in the namespace whose key signs the index")
    add("--signing-keyless", action="store_true", help="sign as the ServiceAccount, without a key")
    add(
        "--provenance",
        choices=[str(each).lower() for each in Provenance],
        metavar="MODE",
        help="how much it tells: min (default), max or disabled",
    )
    add(
        "--compression",
        default="",
        metavar="TYPE",
        help="of layers: gzip, zstd, estargz or uncompressed; with ,level=N and ,force=true as buildx has them",
    )
    command.values["compression"] = [str(each).lower() for each in formats.CompressionType]
    add(
        "--format",
        choices=[str(each).lower() for each in formats.Format],
        metavar="FORM",
        help="what the tags name: index (default) or manifest",
    )
    add(
        "--destination",
        action="append",
        default=[],
        metavar="REPO",
        help="repository that gets the image too; with ,secret=NAME for its Secret; repeatable",
    )
    add("--sbom", action="store_true", help="attach an SBOM to each image")
    add(
        "--source-repository",
        default="",
        metavar="REPO",
        help="where the folder is pushed, by default the image's",
    )
    add("--keep-git-dir", action="store_true", help="include .git in the build context")
    _plain_http(command)
    add("--force-conflicts", action="store_true", help="take over fields that another owner has set")
    add("--dry-run", action="store_true", help="print the resource; push and create nothing")
    _output(command, *_FORMS)
    _following(command, default=True)
    _access(command)


def _rebuild(command: Command) -> None:
    _name(command)
    _output(command, *_FORMS)
    _following(command, default=False)
    _access(command)


def _request(command: Command) -> None:
    _name(command)
    _access(command)


def _inspect(command: Command) -> None:
    command.add(
        "name", metavar="NAME|IMAGE", help="name of a MultiArchBuild, or an image in a registry", complete="builds"
    )
    _output(command, Format.JSON, Format.YAML, Format.JSONPATH)
    _plain_http(command)
    _access(command)


def _compare(command: Command) -> None:
    named = "NAME, NAME@RUN or an image in a registry"
    command.add("first", metavar="A", help=f"{named}; a NAME alone: its last two runs", complete="builds")
    command.add("second", metavar="B", nargs="?", default="", help=named, complete="builds")
    _output(command, Format.JSON, Format.YAML, Format.JSONPATH)
    _plain_http(command)
    _access(command)


def _ui(command: Command) -> None:
    command.add("name", metavar="NAME", nargs="?", default="", help="a build whose page is opened", complete="builds")
    command.add("-A", "--all-namespaces", action="store_true", help="show builds of all namespaces")
    command.add("--port", type=_port, default=0, help="port of 127.0.0.1, by default one that is free")
    command.add("--open", action=argparse.BooleanOptionalAction, default=True, help="open it in the browser")
    _plain_http(command)
    _access(command)


def _report(command: Command) -> None:
    _name(command)
    command.add("-o", "--output", default="", metavar="FILE", help="a run as one HTML file", complete="files")
    command.add("--run", default="", help="with --output the id of the run, by default the last")
    _plain_http(command)
    _access(command)


def _explain(command: Command) -> None:
    command.add(
        "reason",
        nargs="?",
        default="",
        metavar="REASON",
        help="reason of a condition, such as NoBuilder; by default all",
        complete="reasons",
    )


def _doctor(command: Command) -> None:
    command.add(
        "--platform",
        action="append",
        default=[],
        help="platforms that will be built, by default linux/amd64,linux/arm64",
        complete="platforms",
    )
    command.add("--probe", action="store_true", help="start a pod on each node that makes a user namespace")
    command.add("--before-installation", action="store_true", help="only what the operator will need")
    _output(command, Format.JSON, Format.YAML, Format.JSONPATH)
    _access(command)


def _completion(command: Command) -> None:
    command.add("shell", choices=["bash", "zsh", "fish"], help="the shell")


_COMMANDS: Final[Sequence[tuple[str, str, Callable[[Command], None]]]] = (
    ("list", "list builds", _list),
    ("status", "show platforms, conditions and messages of a build", _status),
    ("logs", "print the logs of a run, with platforms", _logs),
    ("build", "build a folder or a manifest, and follow the run", _build),
    ("rebuild", "request another run", _rebuild),
    ("cancel", "cancel the active run", _request),
    ("suspend", "start no further runs", _request),
    ("resume", "start runs again", _request),
    ("inspect", "show what a registry has: images, attestations", _inspect),
    ("compare", "say why a run was slower, or ran a step again", _compare),
    ("doctor", "check whether the cluster has what builds need", _doctor),
    ("report", "print what a bug report needs; write a run as HTML", _report),
    ("ui", "serve a page about builds on this machine", _ui),
    ("explain", "say what a reason means and what to do", _explain),
    ("completion", "print the script for completion in a shell", _completion),
)

_EXAMPLES: Final[Mapping[str, Sequence[str]]] = {
    "list": ("-A -o wide", "-l team=payments --watch"),
    "status": ("hello --follow", "hello -o jsonpath='{.status.image.digest}'"),
    "logs": ("hello -f --platform linux/arm64",),
    "build": (
        ". --platform linux/amd64,linux/arm64 -t ghcr.io/me/app:v1",
        "-f build.yaml",
    ),
    "rebuild": ("hello --follow",),
    "cancel": ("hello",),
    "suspend": ("hello",),
    "resume": ("hello",),
    "inspect": ("hello", "registry.example.com/team-a/hello:v1"),
    "compare": ("hello", "hello@7c1f09ab registry.example.com/team-a/hello:v1"),
    "doctor": ("--before-installation", "-n team-a --probe"),
    "report": ("hello", "hello -o report.html"),
    "ui": ("hello -n team-a",),
    "explain": ("NoBuilder",),
    "completion": ("bash > /etc/bash_completion.d/kubectl-mab",),
}
