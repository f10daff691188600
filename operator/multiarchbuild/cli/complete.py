"""Shell completion, for `kubectl mab` by kubectl's own protocol and for `kubectl-mab` by scripts of ours.

Source: https://github.com/kubernetes/kubernetes/pull/105867: kubectl runs `kubectl_complete-mab` with the words after
`kubectl mab`; it answers a candidate a line, each with a description after a tab, and a directive of cobra's.
"""

import argparse
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from multiarchbuild.api.group import GROUP, PLURAL
from multiarchbuild.api.platforms import SUPPORTED

from .arguments import Command, commands
from .errors import CliError

_NO_FILES: Final = 4
_NO_SPACE: Final = 2
_FOLDERS: Final = 16
_DEFAULT: Final = 0
"""Directives of cobra's `ShellCompDirective`."""
_PATIENCE: Final = 2
"""Seconds that a key press may wait for the API server."""

Candidates = Iterator[tuple[str, str]]
"""Values with what they are."""


def answer(words: Sequence[str]) -> str:
    """Return the answer for `words`, of which the last one is being typed."""
    *before, current = words or [""]
    try:
        found, directive = _complete(before, current)
        lines = [f"{value}\t{text}" if text else value for value, text in found if value.startswith(current)]
    except CliError:
        # Pressing a key must not print an error into the line that is being typed.
        lines, directive = [], _NO_FILES
    return "\n".join([*sorted(lines), f":{directive}\n"])


def _complete(before: Sequence[str], current: str) -> tuple[Candidates, int]:
    _, known = commands()
    # What stands before the command is the same for all of them.
    first = _Words(known[0].before, before)
    if first.expects is not None:
        return _values(known[0], first.expects, current, first.given)
    if not first.others:
        if current.startswith("-"):
            return _options(known[0].before), _NO_FILES
        return ((command.name, command.help) for command in known), _NO_FILES
    command = next((each for each in known if each.name == first.others[0]), None)
    if command is None:
        return iter(()), _NO_FILES
    state = _Words(command.actions, first.others[1:], first.given)
    if state.expects is not None:
        return _values(command, state.expects, current, state.given)
    if current.startswith("-"):
        return _options(command.actions), _NO_FILES
    if positional := state.positional:
        return _values(command, positional, current, state.given)
    return iter(()), _NO_FILES


class _Words:
    """What the words before the current one leave to be completed."""

    def __init__(
        self, actions: Sequence[argparse.Action], words: Sequence[str], given: Mapping[str, str] | None = None
    ) -> None:
        """Read `words`; where `actions` has no positional arguments, only up to the first one."""
        by_option = {option: action for action in actions for option in action.option_strings}
        open_positionals = [action for action in actions if not action.option_strings]
        before_command = not open_positionals and given is None
        self.given: dict[str, str] = dict(given or {})
        self.expects: argparse.Action | None = None
        self.others: Sequence[str] = ()
        """The command and all that follows it."""
        for number, word in enumerate(words):
            if self.expects is not None:
                self.given[self.expects.dest] = word
                self.expects = None
            elif word in by_option:
                action = by_option[word]
                self.expects = action if action.nargs != 0 else None
            elif word.startswith("-"):
                option, equals, value = word.partition("=")
                if equals and option in by_option:
                    self.given[by_option[option].dest] = value
            elif before_command:
                self.others = words[number:]
                break
            elif open_positionals:
                self.given[open_positionals.pop(0).dest] = word
        self.positional = next(iter(open_positionals), None)


def _options(actions: Sequence[argparse.Action]) -> Candidates:
    for action in actions:
        for option in action.option_strings:
            if option.startswith("--"):
                yield option, action.help or ""


def _values(
    command: Command, action: argparse.Action, current: str, given: Mapping[str, str]
) -> tuple[Candidates, int]:
    if offered := command.values.get(action.dest):
        space = _NO_SPACE if any(value.endswith("=") for value in offered if value.startswith(current)) else 0
        return ((value, "") for value in offered), _NO_FILES | space
    if action.choices:
        return ((str(choice), "") for choice in action.choices), _NO_FILES
    match command.completers.get(action.dest):
        case "files":
            return iter(()), _DEFAULT
        case "folders":
            return iter(()), _FOLDERS
        case "platforms":
            done, comma, _ = current.rpartition(",")
            return ((f"{done}{comma}{name}", "") for name in SUPPORTED), _NO_FILES | _NO_SPACE
        case str(kind) if kind:
            return _SOURCES[kind](given), _NO_FILES
    return iter(()), _NO_FILES


def _contexts(given: Mapping[str, str]) -> Candidates:
    from .kubeconfig import Access  # noqa: PLC0415 - only where it is needed: a key press waits for it

    yield from ((name, "") for name in Access(given.get("kubeconfig", "")).read().contexts)


def _namespaces(given: Mapping[str, str]) -> Candidates:
    return _kubectl(given, "namespaces", "custom-columns=:.metadata.name")


def _builds(given: Mapping[str, str]) -> Candidates:
    return _kubectl(given, f"{PLURAL}.{GROUP}", "custom-columns=:.metadata.name,:.spec.output.image")


def _reasons(_: Mapping[str, str]) -> Candidates:
    from .explain import entries  # noqa: PLC0415

    return ((entry.reason, entry.meaning) for entry in entries())


def _kubectl(given: Mapping[str, str], kind: str, columns: str) -> Candidates:
    """List objects by kubectl: it starts much faster than our client and knows every way to log in."""
    words = ["kubectl", "get", kind, "--output", columns, "--no-headers", f"--request-timeout={_PATIENCE}s"]
    for option in ("kubeconfig", "context", "namespace"):
        words += [f"--{option}={given[option]}"] if given.get(option) else []
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            words, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in done.stdout.splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


_SOURCES: Final[Mapping[str, Callable[[Mapping[str, str]], Candidates]]] = {
    "contexts": _contexts,
    "namespaces": _namespaces,
    "builds": _builds,
    "reasons": _reasons,
}

_BASH = """\
_kubectl_mab() {
    local line directive candidates=()
    while IFS= read -r line; do
        case "$line" in
            :*) directive=${line#:} ;;
            *) candidates+=("${line%%$'\\t'*}") ;;
        esac
    done < <(kubectl_complete-mab "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=("${candidates[@]}")
    if [ "$directive" = 0 ]; then compopt -o default; fi
    if [ "$directive" = 16 ]; then compopt -o dirnames; fi
    if (( directive & 2 )); then compopt -o nospace; fi
}
complete -F _kubectl_mab kubectl-mab
"""

_ZSH = """\
#compdef kubectl-mab
_kubectl_mab() {
    local line directive
    local -a candidates
    for line in "${(@f)$(kubectl_complete-mab "${(@)words[2,$CURRENT]}" 2>/dev/null)}"; do
        case "$line" in
            :*) directive=${line#:} ;;
            *) candidates+=("${${line%%$'\\t'*}//:/\\\\:}${${(M)line:#*$'\\t'*}:+:${line#*$'\\t'}}") ;;
        esac
    done
    case "$directive" in
        0) _files ;;
        16) _files -/ ;;
        6) _describe -o nosort values candidates -S '' ;;
        *) _describe values candidates ;;
    esac
}
compdef _kubectl_mab kubectl-mab
"""

_FISH = """\
function __kubectl_mab
    set -l words (commandline -opc) (commandline -ct)
    set -l directive 0
    for line in (kubectl_complete-mab $words[2..-1] 2>/dev/null)
        if string match -q ':*' -- $line
            set directive (string sub -s 2 -- $line)
        else
            echo $line
        end
    end
    if test $directive = 0
        __fish_complete_path (commandline -ct)
    else if test $directive = 16
        __fish_complete_directories (commandline -ct)
    end
end
complete -c kubectl-mab -f -a '(__kubectl_mab)'
"""


def script(shell: str) -> str:
    """Return what a shell has to read; kubectl's own completion needs nothing but `kubectl_complete-mab` on PATH."""
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
