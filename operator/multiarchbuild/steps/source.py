"""The build context: inline files written out, or the files of a commit."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import GitSource

from . import git
from .errors import StepError
from .log import say
from .mounts import Mounts

_POLL = 0.05
"""Seconds between two looks at a file that the kubelet writes."""


@dataclass(frozen=True, slots=True)
class Context:
    """A build context on disk."""

    folder: Path
    time: int
    """Seconds since the epoch: when the commit was made, 0 for inline files."""
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
    if source.git is None:
        return Context(_write_inline(mounts), 0, None)
    return _fetch(mounts, source.git, meanwhile)


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
    return Context(_inside(remote.folder, source), found.time, (source.url, commit))


def _await_source(mounts: Mounts, meanwhile: Callable[[], None]) -> Source:
    """Return the pinned source; the operator writes it into an annotation of this pod."""
    file = mounts.at(paths.POD_INFO) / paths.SOURCE_FILE
    if not file.read_text():
        say("waiting for the commit")
    while not (text := file.read_text()):
        meanwhile()
        time.sleep(_POLL)
    return Source.model_validate_json(text)


def _inside(checkout: Path, source: GitSource) -> Path:
    try:
        folder = (checkout / source.subdirectory).resolve()
        # A symbolic link in the repository must not make the Secrets of this pod the build context.
        found = folder.is_relative_to(checkout.resolve()) and folder.is_dir()
    except (OSError, RuntimeError):  # links in a circle, a name that is too long
        found = False
    if not found:
        raise StepError(
            Reason.DOCKERFILE_NOT_FOUND,
            f"The commit has no folder {source.subdirectory!r}: correct source.git.subdirectory.",
        )
    return folder
