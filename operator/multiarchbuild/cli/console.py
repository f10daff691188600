"""Where output goes: results to standard output, progress and everything said to people to standard error."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from multiarchbuild.api.group import GROUP, KIND

from .choices import Format, Output

_WIDE = 100_000
"""Columns where nobody looks: what a program reads must not be wrapped."""
_COLOURS = {
    "True": "green",
    "False": "red",
    "Unknown": "yellow",
    "Succeeded": "green",
    "Running": "cyan",
    "Failed": "red",
    "Cancelled": "red",
    "Superseded": "red",
    "Pending": "yellow",
    "Emulated": "yellow",
}


_STYLES = re.compile(r"\x1b\[[0-9;:]*m")
_SHOWN = {
    # As the pictures that Unicode has of them; what else a terminal may act on has none.
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys(
        [*range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
    ),
    # Halves of characters, which JSON can hold and nothing can be printed of.
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def visible(text: str) -> str:
    """Return text as a terminal may be given it: nothing that others wrote, such as a build log, acts or hides.

    Colours are left out; any other control character is shown as one.
    """
    return _STYLES.sub("", text).translate(_SHOWN)


class _Console(Console):
    """One on which nothing that is printed can act, but for what the console itself does."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def stdout() -> Console:
    """Return the console for results. NO_COLOR and TERM=dumb are heard by rich."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def stderr() -> Console:
    """Return the console for people."""
    return _Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)


def say(text: str) -> None:
    """Tell a person something, beside the result."""
    stderr().print(Text(text), soft_wrap=True)


def document(content: Any, form: Output) -> None:
    """Print an object or a List for programs."""
    match form.format:
        case Format.JSON:
            sys.stdout.write(_printable(json.dumps(content, indent=2, ensure_ascii=False)) + "\n")
        case Format.JSONPATH:
            from .jsonpath import render  # noqa: PLC0415 - its library is loaded where it is asked for only

            sys.stdout.write(_printable(render(form.template, content)))
        case Format.NAME:
            items = content["items"] if content.get("kind") == "List" else [content]
            sys.stdout.writelines(f"{KIND.lower()}.{GROUP}/{item['metadata']['name']}\n" for item in items)
        case Format.YAML | Format.WIDE:
            sys.stdout.write(as_yaml(content))


def _printable(text: str) -> str:
    """Return text without halves of characters, which JSON of others can hold."""
    return text.encode(errors="replace").decode()


def as_yaml(content: Any) -> str:
    """Return an object as YAML, in its own order."""
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def coloured(text: str) -> Text:
    """Return a state in its colour."""
    return Text(text, style=_COLOURS.get(text.partition(":")[0], ""))


Rows = Sequence[Sequence[str | Text]]


def table(headers: Sequence[str], rows: Rows, widths: Sequence[int] = ()) -> list[Text]:
    """Return the lines of a table as kubectl prints one: aligned columns, no lines, nothing cut.

    Columns are at least `widths` wide.
    """
    wide = column_widths(headers, rows, widths)
    lines = []
    for row in [headers, *rows]:
        line = Text()
        for cell, width in zip(row, wide, strict=True):
            text = cell if isinstance(cell, Text) else Text(cell)
            line.append_text(text).append(" " * (width - text.cell_len + 3))
        line.rstrip()
        lines.append(line)
    return lines


def column_widths(headers: Sequence[str], rows: Rows, widths: Sequence[int] = ()) -> tuple[int, ...]:
    """Return how wide each column of a table is, in cells of a terminal."""
    least = widths or (0,) * len(headers)
    columns = zip(headers, *rows, strict=True)
    return tuple(max(wide, *map(_cells, column)) for wide, column in zip(least, columns, strict=True))


def _cells(cell: str | Text) -> int:
    return (cell if isinstance(cell, Text) else Text(cell)).cell_len


def show(lines: Sequence[Text]) -> None:
    """Print lines to standard output as they are."""
    console = stdout()
    for line in lines:
        console.print(line, soft_wrap=True)


def span(seconds: float | None) -> str:
    """Return a span of time for people, such as 12s, 3m05s, 2h10m or 4d."""
    if seconds is None:
        return "-"
    # What the clock of a cluster has just said is ahead of a clock that is slow.
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def size(count: int) -> str:
    """Return bytes for people, such as 1.2 MB (powers of 1000, as docker prints them)."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:  # noqa: PLR2004 - what would be rounded to 1000
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.3g} {units[0]}"
