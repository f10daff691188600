"""Where output goes: results to standard output, progress and everything said to people to standard error."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

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


class Format(StrEnum):
    """How `--output` writes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def stdout() -> Console:
    """Return the console for results. NO_COLOR and TERM=dumb are heard by rich."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def stderr() -> Console:
    """Return the console for people."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)


def say(text: str) -> None:
    """Tell a person something, beside the result."""
    stderr().print(Text(text), soft_wrap=True)


def document(content: Any, form: Format) -> None:
    """Print JSON or YAML."""
    if form is Format.JSON:
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def coloured(text: str) -> Text:
    """Return a state in its colour."""
    return Text(text, style=_COLOURS.get(text.partition(":")[0], ""))


def table(headers: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[Text]:
    """Return the lines of a table as kubectl prints one: aligned columns, no lines, nothing cut."""
    cells = [[Text(header) for header in headers]]
    cells += [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [max(row[column].cell_len for row in cells) for column in range(len(headers))]
    lines = []
    for row in cells:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + 3))
        line.rstrip()
        lines.append(line)
    return lines


def show(lines: Sequence[Text]) -> None:
    """Print lines to standard output as they are."""
    console = stdout()
    for line in lines:
        console.print(line, soft_wrap=True)


def span(seconds: float | None) -> str:
    """Return a span of time for people, such as 12s, 3m05s, 2h10m or 4d."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, timedelta(seconds=whole).days
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
