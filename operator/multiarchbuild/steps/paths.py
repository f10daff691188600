"""Which files of a repository count (`source.paths`), as one digest that two commits have in common or not.

Two trees are compared, and not a list of commits: it needs no history, so that shallow clones, pushes by force and
Flux's artifacts are told apart in the same way, and a change that is taken back again is none.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from multiarchbuild.api.source import Paths

from .path_patterns import PathPatterns

_CHUNK = 1 << 20
_LINKS = ("120000 ", "link ")
"""How a symbolic link begins, in a tree of git and in a folder."""


def digest(paths: Paths, entries: Iterable[tuple[str, str]], *, always: Collection[str]) -> str:
    """Return the digest of those of `entries` that count, each of which is a path and what is there.

    It is another one for other patterns. The files `always` count whatever they say; where one of them is a link, all
    files count, as it may point to any.
    """
    listed = dict(entries)
    if any(listed.get(path, "").startswith(_LINKS) for path in always):
        paths = Paths()
    counts = _Matcher(paths, always)
    hashed = hashlib.sha256(paths.model_dump_json().encode())
    for path, what in sorted(listed.items()):
        if counts(path):
            hashed.update(f"\0{path}\0{what}".encode(errors="surrogateescape"))
    return f"sha256:{hashed.hexdigest()}"


class _Matcher:
    """Says whether a path counts."""

    def __init__(self, paths: Paths, always: Collection[str]) -> None:
        self._always = always
        self._include = PathPatterns(paths.include or ("**",))
        self._exclude = PathPatterns(paths.exclude)

    def __call__(self, path: str) -> bool:
        return path in self._always or (self._include.fits(path) and not self._exclude.fits(path))


def in_folder(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file below `folder`, with what makes it differ from another: its mode and its content."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield name, f"link {path.readlink()}"
        elif path.is_file():
            executable = path.stat().st_mode & 0o111
            yield name, f"{'executable' if executable else 'file'} {_digest(path)}"


def of_the_build(subdirectory: str, name: str) -> tuple[str, ...]:
    """Return what every build reads, by paths from the root of the repository: the Dockerfile and what it ignores.

    Source: https://docs.docker.com/build/concepts/context/#filename-and-location
    """
    return tuple(_joined(subdirectory, each) for each in (name, f"{name}.dockerignore", ".dockerignore"))


def _joined(subdirectory: str, name: str) -> str:
    parts = [part for part in (*PurePosixPath(subdirectory).parts, *PurePosixPath(name).parts) if part != "."]
    return "/".join(parts)


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()
