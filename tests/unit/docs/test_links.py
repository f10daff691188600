"""Every page can be reached from the index, and every link between files leads somewhere."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.markdown import ROOT, anchors, links, pages

INDEX = ROOT / "docs" / "README.md"


def _inside(page: Path) -> list[tuple[str, Path, str]]:
    """Return the links of `page` to files of the repository: as written, the file, the anchor."""
    parts = [(target, urlsplit(target)) for target in links(page)]
    return [
        (target, (page.parent / split.path).resolve() if split.path else page, split.fragment)
        for target, split in parts
        if not split.scheme
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = [
        target
        for target, file, anchor in _inside(page)
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file))
    ]
    assert dead == []


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    listed = {file for _, file, _ in _inside(INDEX)}
    missing = [str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if page not in {INDEX, *listed}]
    assert missing == []
