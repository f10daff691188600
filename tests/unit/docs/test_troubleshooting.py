"""Every reason that status can show has an entry in docs/troubleshooting.md, and no entry speaks of another."""

import re
from pathlib import Path

from multiarchbuild.api.reasons import Reason

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"


def test_every_reason_has_an_entry() -> None:
    entries = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(entries) == sorted(Reason)
