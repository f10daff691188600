"""The build context: inline files written out, the files of a commit, or those of an archive or artifact."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import FluxSource, GitSource, HttpSource, OciSource

from . import artifact, git
from .archive import unpack
from .credentials import http_headers
from .download import download
from .errors import StepError
from .handover import handed_over
from .log import say
from .mounts import Mounts


@dataclass(frozen=True, slots=True)
class Context:
    """A build context on disk."""

    folder: Path
    time: int
    """Seconds since the epoch: when the commit was made, or the newest file of an archive; 0 for inline files."""
    vcs: tuple[str, str] | None
    """URL and commit, for the provenance."""


def prepare(mounts: Mounts, meanwhile: Callable[[], None]) -> Context:
    """Return the build context of the run, waiting for the resolved source where there is one to wait for.

    `meanwhile` is called while it waits and may raise what makes waiting useless.

    Raises:
        StepError: it cannot be fetched, or has no such subdirectory.
    """
    os.umask(0o022)
    source = mounts.inputs.spec.source
    if source.git is not None:
        return _fetch(mounts, source.git, meanwhile)
    if source.http is not None:
        return _download(mounts, source.http)
    if source.oci is not None:
        return _pull(mounts, source.oci, meanwhile)
    if source.flux is not None:
        return _download_from_flux(mounts, source.flux, meanwhile)
    return Context(_write_inline(mounts), 0, None)


def _write_inline(mounts: Mounts) -> Path:
    """Write the inline files, all with the same time: what is built must not depend on when."""
    folder = mounts.work / "context"
    for path, key in mounts.inputs.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mounts.at(paths.INPUTS) / key, target)
    for written in (folder, *folder.rglob("*")):
        os.utime(written, (0, 0))
    return folder


def _fetch(mounts: Mounts, source: GitSource, meanwhile: Callable[[], None]) -> Context:
    remote = git.connect(mounts, source, mounts.work / "context")
    commit = _await_source(mounts, meanwhile).commit
    assert commit is not None, "decide pins the commit of git sources"
    found = git.fetch(remote, commit, history_only=False)
    if found.commit != commit:
        raise StepError(Reason.GIT_REF_NOT_FOUND, f"{source.url} sent commit {found.commit} when asked for {commit}.")
    assert found.time is not None
    git.check_out(remote, found)
    say(f"fetched commit {commit} of {source.url}")
    return Context(_inside(remote.folder, source.subdirectory, "git"), found.time, (source.url, commit))


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
    archive, pinned = mounts.work / "archive", _await_source(mounts, meanwhile)
    assert pinned.url is not None, "decide hands over the artifact of Flux sources"
    assert pinned.digest is not None
    hint = (
        "If Flux has a newer revision by now, that is built next. Flux's NetworkPolicy lets only its own namespace "
        "connect to source-controller: allow the namespaces of builds too (docs/sources.md)."
    )
    download(mounts, pinned.url, pinned.digest, archive, headers={}, hint=hint)
    say(f"downloaded revision {pinned.revision} of {source.kind} {source.name}")
    what = f"the artifact of {source.kind} {source.name!r}"
    return _unpacked(mounts, archive, what, source.subdirectory, "flux")


def _unpacked(mounts: Mounts, archive: Path, what: str, subdirectory: str, kind: str) -> Context:
    folder = mounts.work / "context"
    newest = unpack(archive, folder, what)
    archive.unlink()
    return Context(_inside(folder, subdirectory, kind), newest, None)


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
