"""Files that are the same for the same commit: their copy, and archives of them."""

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from .release import git


def export(root: Path, to: Path, epoch: int) -> None:
    """Copy what git tracks in `root` to the new folder `to`, as it is in the work tree, all dated `epoch`."""
    for name in filter(None, git(root, "ls-files", "-z").split("\0")):
        source, path = root / name, to / name
        if not os.path.lexists(source):
            continue  # deleted in the work tree of a draft
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    date(to, epoch)


def date(folder: Path, epoch: int) -> None:
    """Give `folder` and everything in it one time."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def tar_gz(files: Mapping[str, tuple[bytes, int]], epoch: int) -> bytes:
    """Return a tar.gz of `files`, content and mode by name, all dated `epoch` and owned by root."""
    to = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=to, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, (content, mode) in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), mode, epoch
            tar.addfile(info, io.BytesIO(content))
    return to.getvalue()
