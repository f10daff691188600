"""The resolve step: the commit behind a branch or tag, once, so that all platforms build the same."""

from multiarchbuild.api.results import Resolved

from . import git
from .log import say
from .mounts import Mounts


def resolve(mounts: Mounts) -> Resolved:
    """Return the commit that source.git means now.

    Raises:
        StepError: it cannot be found or fetched.
    """
    source = mounts.inputs.spec.source.git
    assert source is not None, "decide starts this step for git sources only"
    say(f"looking up {source.ref} in {source.url}")
    remote = git.connect(mounts, source, mounts.work / "history")
    found = git.fetch(remote, source.ref, history_only=True)
    say(f"{source.ref} is commit {found.commit} by {found.author}")
    return Resolved(source=found)
