"""The pages of the documentation as tests read them: fenced blocks, headings and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>.*)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    """Where it begins, from 1."""
    language: str
    label: str
    """What follows the language on the fence: how the tests treat the block; readers do not see it."""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return every page that users and contributors read."""
    folders = ("docs", "examples", "charts")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(lines, start=1):
        found = _FENCE.match(line)
        if opened is None:
            opened = (number, found) if found else None
        elif found and found["fence"] == opened[1]["fence"] and not found["info"]:
            start, fence = opened
            language, _, label = fence["info"].strip().partition(" ")
            text = "\n".join(each.removeprefix(fence["indent"]) for each in lines[start : number - 1])
            yield Block(page, start, language, label.strip(), f"{text}\n")
            opened = None
    assert opened is None, f"{page}: the block that begins at line {opened[0] if opened else 0} does not end"


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return what a page links to."""
    return [found["target"] for found in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page)))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    made: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{made[slug]}" if slug in made else slug)
        made[slug] = made.get(slug, 0) + 1
    return found
