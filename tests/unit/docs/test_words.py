"""Messages in plain English: the patterns that people who are new to it stumble over most.

What a message says: what failed, on which object, why, and what to do.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "operator").rglob("*.py"))
PAGES = sorted(
    path
    for folder in ("docs", "charts")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".md", ".yaml", ".txt"} and path.name != "decisions.md"
)
INSTEAD = {
    r"(?<!there )\bis no (?!longer\b|more\b|faster\b|further\b)\w": "is not a …",
    r"\bmend(?:s|ed|ing)?\b": "fix, correct",
    r"\basked for anew\b": "requested again",
    r"\bwithout a word\b": "silently",
    r"\bhas (?:no|a) say\b": "does (not) restrict",
    r"\bso that nobody\b": "so that no …",
    r"\bstands alone\b": "needs a …",
    r"\bis there twice\b": "is listed twice",
    r"(?:^|[.;:] )[Ww]ho (?:runs|does|has|wants)\b": "name the person: administrator, user, owner",
    r"\bof a kind that nobody\b": "of an unsupported type",
    r"\bnothing is left of\b": "is gone",
    r"\bnobody could\b": "say what to do instead",
    r"\bunder way\b": "in progress, running",
}
"""What to write instead of what a pattern finds."""


def test_a_pattern_finds_what_it_is_for() -> None:
    text = "the answer is no JSON object; mend it; Who runs the operator can; it is no longer there"
    assert sorted(found for found, _ in misfits(text)) == ["; Who runs", "is no J", "mend"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "operator" / "multiarchbuild")))
def test_messages_are_plain(path: Path) -> None:
    found = [(line, *hit) for line, text in messages(path.read_text(encoding="utf-8")) for hit in misfits(text)]
    assert found == [], "line, words, what to write instead"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_plain(path: Path) -> None:
    assert list(misfits(path.read_text(encoding="utf-8"))) == [], "words, what to write instead"


def misfits(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words that a pattern finds, and what to write instead."""
    for pattern, instead in INSTEAD.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield match[0], instead


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield the texts in a module with their lines; documentation of code is none of them."""
    tree = ast.parse(source)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(map(id, node.values))
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value
