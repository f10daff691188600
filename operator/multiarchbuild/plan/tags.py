"""Tags and the placeholders in them."""

import re
from datetime import UTC, datetime

from multiarchbuild.api.status import SourceStatus

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
    # A tag must not start with '.' or '-', which a ref may bring in.
    return tuple(dict.fromkeys(tag[:MAX_TAG].lstrip(".-") for tag in expanded))
