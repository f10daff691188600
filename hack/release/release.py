"""What a release is of, and where it goes."""

import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .errors import ReleaseError

HOME: Final = "https://github.com/multiarchbuild/multiarchbuild"
PLATFORMS: Final = ("linux/amd64", "linux/arm64")
VERSION_FILE: Final = Path("operator", "multiarchbuild", "__init__.py")
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_SEMANTIC = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Release:
    """One version of everything."""

    version: str
    registry: str
    """Registry, or a path in one, that images and chart are pushed to."""
    tree: Path
    """The files of the commit, all dated `epoch`."""
    out: Path
    """Folder of the files to download."""
    commit: str
    epoch: int
    """Time of the commit in seconds since 1970."""
    downloads: str = ""
    """URL of the folder from which `out` is downloaded."""

    @property
    def created(self) -> str:
        """Time of the commit, as RFC 3339 writes it."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def charts(self) -> str:
        """Repository that the chart is pushed below, without `oci://`."""
        return f"{self.registry}/charts"

    @property
    def wheel(self) -> str:
        """URL of the wheel."""
        return self.url(f"multiarchbuild-{self.version}-py3-none-any.whl")

    def image(self, name: str) -> str:
        """Return the repository of an image."""
        return f"{self.registry}/{name}"

    def url(self, file: str) -> str:
        """Return where a file of the release is downloaded from."""
        return f"{self.downloads or f'{HOME}/releases/download/v{self.version}'}/{file}"


def check_version(version: str, text: str) -> None:
    """Raise unless `version` is that of the package, whose version file has this text.

    Raises:
        ReleaseError: it is not.
    """
    found = _VERSION.search(text)
    own = found[1] if found else ""
    if not _SEMANTIC.fullmatch(version):
        raise ReleaseError(f"VERSION={version} is not a version such as {own or '1.2.3'}: write MAJOR.MINOR.PATCH")
    if version != own:
        raise ReleaseError(
            f"VERSION={version}, but the tree is version {own}: "
            f"change {VERSION_FILE}, and version and appVersion in charts/multiarchbuild/Chart.yaml"
        )


def head(root: Path, *, draft: bool) -> tuple[str, int]:
    """Return the commit that is checked out in `root`, and its time in seconds since 1970.

    Raises:
        ReleaseError: there are uncommitted changes, and it is not a `draft`.
    """
    changed = git(root, "status", "--porcelain").splitlines()
    if changed and not draft:
        raise ReleaseError(f"{len(changed)} files are not committed: commit them, or try with DRAFT=1")
    commit, time = git(root, "log", "-1", "--format=%H %ct").split()
    return commit, int(time)


def git(root: Path, *arguments: str) -> str:
    """Return what git prints.

    Raises:
        ReleaseError: it failed.
    """
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
