"""What a decision about one build has to know of all the others: little, so that it can be kept for thousands."""

from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api.conditions import Condition, ConditionType
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import Result

from .tags import child_tag


@dataclass(frozen=True, slots=True)
class BuildSummary:
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
    polling: bool = False
    """Whether a pod looks at its source at the moment."""
    parents: tuple[str, ...] = ()
    """Names of the builds of its namespace whose images it is built from."""
    destinations: tuple[str, ...] = ()
    """Further repositories in which it moves the same tags."""
    published: str = ""
    """Its image by digest, where it has one."""
    published_for: tuple[str, ...] = ()
    """Platforms of that image."""
    trouble: str = ""
    """What those that are built from it have to know: that it is suspended, or that its last run has failed."""
    base_images: tuple[str, ...] = ()
    """Tags that start a run of it when they move, as `registry/repository:tag` (`rebuild.onBaseImage`)."""
    child_suffixes: tuple[str, ...] = ()
    """What the tags of single images end in, beside each of `tags` (`output.childTags`)."""

    @property
    def repositories(self) -> tuple[str, ...]:
        """All repositories in which it moves its tags, that of the image first."""
        return (self.image, *self.destinations)

    def moves(self, name: str) -> bool:
        """Return whether it moves the tag `name`, which is written as `registry/repository:tag`."""
        repository, _, tag = name.rpartition(":")
        if repository not in self.repositories:
            return False
        return tag in self.tags or any(
            child_tag(own, suffix) == tag for own in self.tags for suffix in self.child_suffixes
        )


def summarize(build: MultiArchBuild) -> BuildSummary:
    """Return what others see of `build`."""
    meta, status = build.metadata, build.status
    ready = next((entry for entry in status.conditions if entry.type == ConditionType.READY), None)
    running = status.run is not None and status.run.result is None
    # A run has its turn, also while its pods are in somebody else's queue.
    queued = ready is not None and ready.reason == Reason.QUEUED and not running
    return BuildSummary(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created_at=meta.creation_timestamp,
        running=running,
        waiting_since=ready.last_transition_time if ready and queued else None,
        image=build.spec.output.image,
        tags=_tags(build),
        destinations=tuple(each.image for each in build.spec.output.destinations),
        polling=any(look is not None and look.pod is not None for look in (status.source, status.base_images)),
        parents=build.spec.build.parents,
        published=status.image.ref if status.image else "",
        published_for=tuple(each.platform for each in status.image.platforms) if status.image else (),
        trouble=_trouble(build, ready),
        base_images=tuple(base.partition("@")[0] for base in status.image.bases)
        if status.image and build.spec.rebuild.on_base_image
        else (),
        child_suffixes=tuple(Platform.parse(each).slug for each in build.spec.platforms)
        if build.spec.output.child_tags
        else (),
    )


def _trouble(build: MultiArchBuild, ready: Condition | None) -> str:
    run = build.status.run
    if build.spec.suspend:
        return "is suspended"
    if run is not None and run.result not in {None, Result.SUCCEEDED}:
        return f"is not built: its last run ended with {run.reason}"
    blocked = ready is not None and ready.reason in {Reason.POLICY_DENIED, Reason.INVALID_SPEC, Reason.PARENT_NOT_READY}
    return f"can not be built: {ready.reason}" if ready is not None and blocked else ""


def _tags(build: MultiArchBuild) -> frozenset[str]:
    """Return the tags that are known: fixed ones, and what those with placeholders have become last."""
    output, image = build.spec.output, build.status.image
    fixed = {tag for tag in output.tags if "{" not in tag}
    made = image.tags if image and len(fixed) < len(output.tags) and image.ref.startswith(f"{output.image}@") else ()
    return frozenset({*fixed, *made})
