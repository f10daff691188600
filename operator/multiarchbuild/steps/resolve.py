"""The resolve step: what a branch or tag means now, once, so that all platforms build the same."""

from collections.abc import Iterable

from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.results import Resolved, Source
from multiarchbuild.api.source import FluxSource, GitSource, OciSource, Paths
from multiarchbuild.plan.identity import is_commit

from .log import say
from .mounts import Mounts


def resolve(
    mounts: Mounts, *, artifact: Source | None = None, paths: Paths | None = None, last: str | None = None
) -> Resolved:
    """Return the commit that source.git means now, or the digest that source.oci does.

    Args:
        mounts: Of the pod.
        artifact: What is built of a Flux source, of which only `paths` is to be found out.
        paths: Which files count.
        last: A `LastImage` as JSON: whether a build would make it again is looked at too.

    Raises:
        StepError: it cannot be found or fetched.
    """
    source = mounts.inputs.spec.source
    found = artifact
    if source.oci is not None and (last is None or "@" not in source.oci.image):
        found = _artifact(mounts, source.oci)
    elif source.flux is not None and artifact is not None:
        found = _revision(mounts, source.flux, artifact, paths)
    elif source.git is not None and (last is None or not is_commit(source.git.ref)):
        found = _commit(mounts, source.git, paths)
    if last is not None:
        return _compared(mounts, LastImage.model_validate_json(last), found)
    assert found is not None, "decide starts this step for what has to be looked up, or to compare"
    return Resolved(source=found)


def _compared(mounts: Mounts, last: LastImage, found: Source | None) -> Resolved:
    from .unchanged import Unchanged, compare  # noqa: PLC0415 - only where it is asked

    came = compare(mounts, last, found, mounts.inputs.spec.platforms)
    own = found or last.source
    return Resolved(source=own, unchanged=True) if isinstance(came, Unchanged) else Resolved(source=own, changed=came)


def _commit(mounts: Mounts, source: GitSource, paths: Paths | None) -> Source:
    from . import git  # noqa: PLC0415 - each source loads what it needs

    say(f"looking up {source.ref} in {source.url}")
    remote = git.connect(mounts, source, mounts.work / "history")
    found = git.fetch(remote, source.ref, wanted=git.Wanted.COMMIT if paths is None else git.Wanted.TREES)
    say(f"{source.ref} is commit {found.commit} by {found.author}")
    if paths is None:
        return found
    return found.model_copy(update={"paths": _digest(mounts, paths, git.tree(remote, found), source.subdirectory)})


def _revision(mounts: Mounts, source: FluxSource, artifact: Source, paths: Paths | None) -> Source:
    from .paths import in_folder  # noqa: PLC0415
    from .source import unpack_from_flux  # noqa: PLC0415

    if paths is None:  # it was removed while the run went on
        return artifact
    folder = unpack_from_flux(mounts, source, artifact)
    return artifact.model_copy(update={"paths": _digest(mounts, paths, in_folder(folder), source.subdirectory)})


def _digest(mounts: Mounts, paths: Paths, entries: Iterable[tuple[str, str]], subdirectory: str) -> str:
    from .paths import digest, of_the_build  # noqa: PLC0415

    found = digest(paths, entries, always=of_the_build(subdirectory, mounts.inputs.spec.build.dockerfile))
    say(f"the files that source.paths names are {found}")
    return found


def _artifact(mounts: Mounts, source: OciSource) -> Source:
    from . import artifact  # noqa: PLC0415

    say(f"looking up {source.image}")
    digest = artifact.digest_of_tag(mounts, source.image)
    say(f"{source.image} is {digest}")
    return Source(digest=digest, ref=source.image.rpartition(":")[2])
