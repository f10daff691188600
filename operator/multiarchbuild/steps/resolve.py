"""The resolve step: what a branch or tag means now, once, so that all platforms build the same."""

from multiarchbuild.api.results import Resolved, Source
from multiarchbuild.api.source import GitSource, OciSource

from .log import say
from .mounts import Mounts


def resolve(mounts: Mounts) -> Resolved:
    """Return the commit that source.git means now, or the digest that source.oci does.

    Raises:
        StepError: it cannot be found or fetched.
    """
    source = mounts.inputs.spec.source
    if source.oci is not None:
        return Resolved(source=_artifact(mounts, source.oci))
    assert source.git is not None, "decide starts this step for branches and tags only"
    return Resolved(source=_commit(mounts, source.git))


def _commit(mounts: Mounts, source: GitSource) -> Source:
    from . import git  # noqa: PLC0415 - each source loads what it needs

    say(f"looking up {source.ref} in {source.url}")
    remote = git.connect(mounts, source, mounts.work / "history")
    found = git.fetch(remote, source.ref, history_only=True)
    say(f"{source.ref} is commit {found.commit} by {found.author}")
    return found


def _artifact(mounts: Mounts, source: OciSource) -> Source:
    from . import artifact  # noqa: PLC0415

    say(f"looking up {source.image}")
    digest = artifact.digest_of_tag(mounts, source.image)
    say(f"{source.image} is {digest}")
    return Source(digest=digest, ref=source.image.rpartition(":")[2])
