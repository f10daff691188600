"""The build context: inline files written out, the files of a commit, or those of an archive or artifact."""

import os
import posixpath
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import FluxSource, GitSource, HttpSource, OciSource
from multiarchbuild.api.source import Source as SourceSpec

from . import artifact, git
from .archive import unpack
from .credentials import http_headers
from .dates import EARLIEST, date, within_formats
from .download import download
from .errors import StepError
from .handover import handed_over
from .log import say
from .mounts import Mounts

_SHOWN = 8
"""How many names of a folder a message shows."""


@dataclass(frozen=True, slots=True)
class Context:
    """A build context on disk."""

    folder: Path
    time: int
    """Date of its files in seconds since the epoch: of the commit, of the newest file of an archive, or EARLIEST."""
    vcs: tuple[str, str] | None
    """URL and commit, for the provenance."""


def prepare(mounts: Mounts, meanwhile: Callable[[], None]) -> Context:
    """Return the build context of the run, waiting for the resolved source where there is one to wait for.

    `meanwhile` is called while it waits and may raise what makes waiting useless.

    Raises:
        StepError: it cannot be fetched, or has no such subdirectory, or no Dockerfile.
    """
    os.umask(0o022)
    context = _fetched(mounts, meanwhile)
    spec = mounts.inputs.spec
    _require_dockerfile(context.folder, spec.build.dockerfile, spec.source)
    return context


def _fetched(mounts: Mounts, meanwhile: Callable[[], None]) -> Context:
    source = mounts.inputs.spec.source
    if source.git is not None:
        return _fetch(mounts, source.git, meanwhile)
    if source.http is not None:
        return _download(mounts, source.http)
    if source.oci is not None:
        return _pull(mounts, source.oci, meanwhile)
    if source.flux is not None:
        return _download_from_flux(mounts, source.flux, meanwhile)
    return Context(_write_inline(mounts), EARLIEST, None)


def _write_inline(mounts: Mounts) -> Path:
    """Write the inline files, all with the same time: what is built must not depend on when."""
    folder = mounts.work / "context"
    for path, key in mounts.inputs.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mounts.inputs_folder / key, target)
    date(folder, EARLIEST)
    return folder


def _fetch(mounts: Mounts, source: GitSource, meanwhile: Callable[[], None]) -> Context:
    remote = git.connect(mounts, source, mounts.work / "context")
    commit = _await_source(mounts, meanwhile).commit
    assert commit is not None, "decide pins the commit of git sources"
    found = git.fetch(remote, commit, wanted=git.Wanted.FILES)
    if found.commit != commit:
        raise StepError(Reason.GIT_REF_NOT_FOUND, f"{source.url} sent commit {found.commit} when asked for {commit}.")
    assert found.time is not None
    git.check_out(remote, found)
    time = within_formats(found.time)
    date(remote.folder, time)
    say(f"fetched commit {commit} of {source.url}")
    return Context(_inside(remote.folder, source.subdirectory, "git"), time, (source.url, commit))


def _download(mounts: Mounts, source: HttpSource) -> Context:
    archive = mounts.work / "archive"
    hint = "Check source.http.url and source.http.secretRef, and that pods may connect to its host."
    download(mounts, source.url, source.checksum, archive, headers=http_headers(mounts), hint=hint)
    say(f"downloaded {source.url}, {source.checksum}")
    return _unpacked(mounts, archive, source.url, source.subdirectory, "http")


def _pull(mounts: Mounts, source: OciSource, meanwhile: Callable[[], None]) -> Context:
    archive = mounts.work / "archive"
    digest = source.image.partition("@")[2] or _await_source(mounts, meanwhile).digest
    assert digest is not None, "decide pins the digest of artifacts"
    artifact.pull(mounts, source.image, digest, archive)
    say(f"pulled {source.image}, {digest}")
    return _unpacked(mounts, archive, source.image, source.subdirectory, "oci")


def _download_from_flux(mounts: Mounts, source: FluxSource, meanwhile: Callable[[], None]) -> Context:
    pinned = _await_source(mounts, meanwhile)
    archive = _fetch_from_flux(mounts, source, pinned)
    return _unpacked(mounts, archive, _artifact_of(source), source.subdirectory, "flux")


def unpack_from_flux(mounts: Mounts, source: FluxSource, artifact: Source) -> Path:
    """Return a folder with all files of `artifact`.

    Raises:
        StepError: it cannot be fetched, or is not what Flux says it is.
    """
    archive, folder = _fetch_from_flux(mounts, source, artifact), mounts.work / "revision"
    unpack(archive, folder, _artifact_of(source))
    archive.unlink()
    return folder


def _artifact_of(source: FluxSource) -> str:
    return f"the artifact of {source.kind} {source.name!r}"


def _fetch_from_flux(mounts: Mounts, source: FluxSource, pinned: Source) -> Path:
    archive = mounts.work / "archive"
    assert pinned.url is not None, "decide hands over the artifact of Flux sources"
    assert pinned.digest is not None
    hint = (
        "If Flux has a newer revision by now, that is built next. Flux's NetworkPolicy lets only its own namespace "
        "connect to source-controller: allow the namespaces of builds too (docs/sources.md)."
    )
    download(mounts, pinned.url, pinned.digest, archive, headers={}, hint=hint)
    say(f"downloaded revision {pinned.revision} of {source.kind} {source.name}")
    return archive


def _unpacked(mounts: Mounts, archive: Path, what: str, subdirectory: str, kind: str) -> Context:
    folder = mounts.work / "context"
    newest = unpack(archive, folder, what)
    archive.unlink()
    return Context(_inside(folder, subdirectory, kind), newest, None)


def pinned(mounts: Mounts) -> Source | None:
    """Return what is built, waiting for it where it is being looked up; None where the spec says it all."""
    source = mounts.inputs.spec.source
    if source.inline or source.http or (source.oci and "@" in source.oci.image):
        return None
    return _await_source(mounts, lambda: None)


def _await_source(mounts: Mounts, meanwhile: Callable[[], None]) -> Source:
    return Source.model_validate_json(handed_over(mounts, paths.SOURCE_FILE, "the source", meanwhile))


def _inside(checkout: Path, subdirectory: str, kind: str) -> Path:
    try:
        folder = (checkout / subdirectory).resolve()
        # A symbolic link in the source must not make the Secrets of this pod the build context.
        found = folder.is_relative_to(checkout.resolve()) and folder.is_dir()
    except (OSError, RuntimeError):  # links in a circle, a name that is too long
        found = False
    if not found:
        raise StepError(
            Reason.DOCKERFILE_NOT_FOUND,
            f"The source has no folder {subdirectory!r}: correct source.{kind}.subdirectory.",
        )
    return folder


def _require_dockerfile(context: Path, dockerfile: str, source: SourceSpec) -> None:
    """Raise a StepError that leads to the right field if the context has no `dockerfile`.

    BuildKit would say so too, but not where the Dockerfile is. What depends on how it follows links is left to it.
    """
    # BuildKit takes `dockerfile` for `Dockerfile` (frontend/dockerui, ReadEntrypoint).
    path = PurePosixPath(dockerfile)
    names = [path, path.with_name("dockerfile")] if path.name == "Dockerfile" else [path]
    above = [context / folder for folder in path.parents]
    if any(os.path.lexists(context / name) for name in names) or any(folder.is_symlink() for folder in above[:-1]):
        return
    kind = next(kind for kind in type(source).model_fields if getattr(source, kind) is not None)
    raise StepError(
        Reason.DOCKERFILE_NOT_FOUND,
        f"The source has no file {dockerfile!r}{_remedy(context, source, kind)}.",
    )


def _remedy(context: Path, source: SourceSpec, kind: str) -> str:
    if kind == "inline":
        return ": correct build.dockerfile, or add it to source.inline.files"
    inside = getattr(source, kind).subdirectory
    where, field = f" in its folder {inside!r}" if inside else "", f"source.{kind}.subdirectory"
    found = sorted(context.iterdir())
    if len(found) == 1 and found[0].is_dir() and not found[0].is_symlink():
        only = found[0].name
        return f"{where}: the only thing there is the folder {only!r}; set {field} to {posixpath.join(inside, only)!r}"
    names = [f"{path.name}/" if path.is_dir() else path.name for path in found]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{where}; it has {shown or 'no files'}: correct build.dockerfile or {field}"
