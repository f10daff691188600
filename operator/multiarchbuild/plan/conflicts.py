"""Two builds that move the same tag: each would undo what the other did. The newer one is told."""

from multiarchbuild.api.resource import MultiArchBuild

from .build_summary import summarize
from .cluster import ClusterView

_SHOWN = 3
"""Tags that a message names."""


def tag_conflict(build: MultiArchBuild, others: ClusterView) -> str:
    """Return which tags of `build` an older build moves too, and what to do; nothing where there is none."""
    own = summarize(build)
    found = [
        (other.created_at, other.uid, other, repository)
        for repository in own.repositories
        for other in others.pushing_to(repository)
        if not other.tags.isdisjoint(own.tags) and (other.created_at, other.uid) < (own.created_at, own.uid)
    ]
    if not found:
        return ""
    # By age alone: of the oldest the repository that comes first in its spec.
    *_, other, repository = min(found, key=lambda each: each[:2])
    common = sorted(other.tags & own.tags)
    tags = ", ".join(f"{repository}:{tag}" for tag in common[:_SHOWN]) + (", …" if len(common) > _SHOWN else "")
    # Who may read this can't see other namespaces: who can finds the build by its spec.output.image.
    who = other.name if other.namespace == own.namespace else "a build of another namespace"
    field = "output.image" if repository == own.image == other.image else "the repository"
    return f"{tags}: also moved by {who}, which is older. Change output.tags or {field} of one of the two."
