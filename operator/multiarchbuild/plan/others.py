"""What a decision about one build has to know of all the others: little, so that it can be kept for thousands."""

from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild


@dataclass(frozen=True, slots=True)
class Other:
    """A build as the others see it."""

    namespace: str
    name: str
    uid: str
    created_at: datetime
    running: bool
    """Whether a run of it is going on."""
    waiting_since: datetime | None
    """Since when it waits for its turn, if it does."""
    image: str
    """Repository that it pushes to."""
    tags: frozenset[str]
    """Tags that it moves there."""


def summarized(build: MultiArchBuild) -> Other:
    """Return what others see of `build`."""
    meta, status = build.metadata, build.status
    ready = next((entry for entry in status.conditions if entry.type == ConditionType.READY), None)
    queued = ready is not None and ready.reason == Reason.QUEUED
    return Other(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created_at=meta.creation_timestamp,
        running=status.run is not None and status.run.result is None,
        waiting_since=ready.last_transition_time if ready and queued else None,
        image=build.spec.output.image,
        tags=_tags(build),
    )


def _tags(build: MultiArchBuild) -> frozenset[str]:
    """Return the tags that are known: fixed ones, and what those with placeholders have become last."""
    output, image = build.spec.output, build.status.image
    fixed = {tag for tag in output.tags if "{" not in tag}
    made = image.tags if image and len(fixed) < len(output.tags) and image.ref.startswith(f"{output.image}@") else ()
    return frozenset({*fixed, *made})
