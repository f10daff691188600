"""What options choose from. Loaded at each press of TAB, so it imports nothing that is slow to load."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Progress(StrEnum):
    """What `--progress` takes, as with buildx."""

    AUTO = "auto"
    TTY = "tty"
    PLAIN = "plain"
    QUIET = "quiet"


class Format(StrEnum):
    """How `--output` writes, in kubectl's words."""

    WIDE = "wide"
    NAME = "name"
    JSON = "json"
    YAML = "yaml"
    JSONPATH = "jsonpath"


@dataclass(frozen=True, slots=True)
class Output:
    """What `--output` asks for."""

    format: Format
    template: str = ""
    """The template of `jsonpath=TEMPLATE`."""


def output(*forms: Format) -> Callable[[str], Output]:
    """Return the parser of an `--output` that offers `forms`."""

    def parse(text: str) -> Output:
        name, equals, template = text.partition("=")
        if name not in forms or bool(template) != (name == Format.JSONPATH):
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(offered(forms))}")
        return Output(Format(name), template if equals else "")

    return parse


def offered(forms: tuple[Format, ...]) -> list[str]:
    """Return how `forms` are written on a command line."""
    return ["jsonpath=TEMPLATE" if form is Format.JSONPATH else str(form) for form in forms]
