"""Tags and the placeholders in them."""

import re
from datetime import UTC, datetime

from multiarchbuild.api.spec import RESERVED_TAG_PREFIXES
from multiarchbuild.api.status import SourceStatus

from .identity import digest

MAX_TAG = 128
"""https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests"""


def expand(tags: tuple[str, ...], source: SourceStatus, started_at: datetime, run: str) -> tuple[str, ...]:
    """Return `tags` with {commit}, {shortCommit}, {ref}, {date}, {time} and {run} replaced, each tag once.

    Values are substituted literally and only once, so that a ref named `{run}` stays what it is.
    """
    utc = started_at.astimezone(UTC)
    values = {
        "commit": source.commit or "",
        "shortCommit": (source.commit or "")[:7],
        "ref": re.sub(
            r"[^A-Za-z0-9_.-]", "-", (source.ref or "").removeprefix("refs/heads/").removeprefix("refs/tags/")
        ),
        "date": utc.strftime("%Y%m%d"),
        "time": utc.strftime("%H%M%S"),
        "run": run,
    }
    expanded = (re.sub(r"\{(\w+)\}", lambda match: values[match[1]], tag) for tag in tags)
    return tuple(dict.fromkeys(_tag(text) for text in expanded))


def child_tag(tag: str, suffix: str) -> str:
    """Return the tag of what the index under `tag` lists: `latest-arm64`. It moves when `tag` does.

    Two tags that are too long for it and differ only at their end must not share one.
    """
    if len(tag) + len(suffix) + 1 > MAX_TAG:
        own = f"-{digest(tag)[:8]}"
        tag = tag[: MAX_TAG - len(suffix) - 1 - len(own)] + own
    return f"{tag}-{suffix}"


def _tag(text: str) -> str:
    """Return `text` as a tag: a ref may bring in what no tag begins with, or only one of the cache or a signature."""
    if text.startswith(RESERVED_TAG_PREFIXES):
        text = f"_{text}"
    return re.sub(r"^[.-]", "_", text)[:MAX_TAG]
