"""Two builds that move the same tag: each would undo what the other did. The newer one is told."""

from collections.abc import Sequence
from datetime import datetime

from multiarchbuild.api.conditions import Condition, ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild

from .others import Other, summarized

_SHOWN = 3
"""Tags that a message names."""


def tag_conflict(build: MultiArchBuild, others: Sequence[Other], now: datetime) -> Condition | None:
    """Return the condition TagConflict where an older build moves one of the tags of `build`."""
    own = summarized(build)
    found = [
        (other.created_at, other.uid, other)
        for other in others
        if other.image == own.image
        and not other.tags.isdisjoint(own.tags)
        and (other.created_at, other.uid) < (own.created_at, own.uid)
    ]
    if not found:
        return None
    *_, other = min(found)
    common = sorted(other.tags & own.tags)
    tags = ", ".join(f"{own.image}:{tag}" for tag in common[:_SHOWN]) + (", …" if len(common) > _SHOWN else "")
    # Names of another tenant's builds are nobody else's business.
    who = other.name if other.namespace == own.namespace else f"a build of namespace {other.namespace}"
    return Condition(
        type=ConditionType.TAG_CONFLICT,
        status="True",
        reason=Reason.TAG_CONFLICT,
        message=f"{tags}: also moved by {who}, which is older. Change output.tags or output.image of one of the two.",
        observed_generation=build.metadata.generation,
        last_transition_time=now,
    )
