"""`kubectl mab explain REASON`: the entry of docs/troubleshooting.md, which is packed beside this module."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from rich.text import Text

from .console import table
from .errors import UsageError

PAGE: Final = "troubleshooting.md"
"""Copy of the page in docs/, made by `make generate`."""
_ENTRY: Final = re.compile(r"^\| `(?P<reason>\w+)` \| (?P<meaning>.*?) \| (?P<remedy>.*?) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the page says of one reason."""

    reason: str
    meaning: str
    remedy: str


def entries() -> list[Entry]:
    """Return all entries in the order of the page, without Markdown."""
    page = resources.files(__package__).joinpath(PAGE).read_text(encoding="utf-8")
    return [
        Entry(match["reason"], _plain(match["meaning"]), _plain(match["remedy"])) for match in _ENTRY.finditer(page)
    ]


def lines(reason: str) -> list[Text]:
    """Return what `explain` prints: one entry, or a table of all where `reason` is empty.

    Raises:
        UsageError: there is no such reason; the message names those that are alike.
    """
    known = entries()
    if not reason:
        return table(["REASON", "MEANING"], [[entry.reason, entry.meaning] for entry in known])
    found = next((entry for entry in known if entry.reason.lower() == reason.lower()), None)
    if found is None:
        by_lower = {entry.reason.lower(): entry.reason for entry in known}
        alike: Sequence[str] = difflib.get_close_matches(reason.lower(), by_lower, n=3)
        hint = (
            f"did you mean {' or '.join(by_lower[each] for each in alike)}?"
            if alike
            else "kubectl mab explain lists all"
        )
        raise UsageError(f"unknown reason {reason!r}: {hint}")
    return [
        Text(found.reason, style="bold"),
        Text(),
        Text(found.meaning),
        Text(),
        Text("What to do: ", style="bold").append(found.remedy, style="not bold"),
    ]


def _plain(markdown: str) -> str:
    return _LINK.sub(r"\1", markdown).replace("`", "").strip()
