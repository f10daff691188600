"""A folder as a tar and back: what the command line packs is what the build step unpacks.

Kept are names, bytes, modes (all twelve bits), symbolic links as they are, wherever they lead, and hard links; so does
BuildKit when it is sent a folder. Left out are owners, times, devices, pipes and sockets. Nothing is ever written
through a link that leads out of the folder.
"""

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

CHUNK: Final = 256 * 1024
_HEADER = 1024**2
"""Bytes of one entry's headers at most: they are memory. Paths have 4 KiB, extended attributes 64 KiB each."""
_HEADERS = 512 * 1024**2
"""Bytes of all headers: those of 250,000 entries with extended headers have less."""
_GLOBALS = 128
"""Headers for all entries that follow: memory as well."""


class UnsafeError(Exception):
    """An entry that would leave the folder, or that costs more than any folder of sources; the message says which."""


class DamagedError(Exception):
    """The bytes are not those of a tar from some place on."""


class Stream(Protocol):
    """What a tar is read from, from its beginning to its end and never back."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; fewer at the end only."""


Spend = Callable[[int], None]
"""Is told of each entry with its bytes before they are written; raises where they are too many."""


class Packer:
    """Writes entries of a folder to a tar, all of one time in seconds since the epoch."""

    def __init__(self, tar: tarfile.TarFile, root: Path, time: int = 0) -> None:
        self._tar, self._root, self._time = tar, root, time
        self._links: dict[tuple[int, int], str] = {}

    def add(self, path: str) -> None:
        """Write the folder, file or symbolic link at `path` below the root.

        Raises:
            OSError: it cannot be read, or has become shorter meanwhile.
        """
        file = self._root / path
        status = file.lstat()
        info = tarfile.TarInfo(path)
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), self._time
        first = path
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._tar.addfile(info)
        elif stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(file)  # noqa: PTH115 - as it is, not made a path
            self._tar.addfile(info)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            self._tar.addfile(info)
        else:
            with file.open("rb") as content:
                info.size = os.fstat(content.fileno()).st_size
                self._tar.addfile(info, content)


class Tree:
    """A new folder that entries of an archive are written to, each in the place of what has had its name before.

    Every method raises UnsafeError for an entry that would leave the folder, and OSError where it cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = str(root.resolve())
        self._modes: dict[Path, int] = {}
        self._parents: dict[tuple[str, ...], Path] = {}

    def folder(self, name: str, mode: int) -> None:
        """Make a folder; it has its mode once `finish` is called."""
        if not PurePosixPath(name).parts:
            return  # the root itself, which is there
        path = self._place(name)
        if not path.is_dir() or path.is_symlink():
            self._clear(path)
            path.mkdir(mode=0o755)
        self._modes[path] = mode

    def file(self, name: str, content: Iterable[bytes], mode: int) -> None:
        """Write a file. Its owner may read it whatever `mode` says: otherwise it could not be sent to BuildKit."""
        path = self._place(name)
        self._clear(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in content:
                file.write(chunk)
            os.fchmod(file.fileno(), stat.S_IMODE(mode) | stat.S_IRUSR)

    def symlink(self, name: str, to: str) -> None:
        """Make a symbolic link; it may lead anywhere, as nothing is written through it."""
        path = self._place(name)
        self._clear(path)
        path.symlink_to(to)
        self._parents.clear()

    def hard_link(self, name: str, to: str) -> None:
        """Make a second name of the file, or symbolic link, that `to` names now."""
        path, existing = self._place(name), self._place(to)
        if path == existing or (not existing.is_symlink() and not existing.is_file()):
            raise UnsafeError(f"the hard link {name!r} leads to {to!r}, which is not a file before it")
        self._clear(path)
        os.link(existing, path, follow_symlinks=False)

    def finish(self) -> None:
        """Give the folders their modes; their owner may always read them."""
        for path in sorted(self._modes, key=lambda path: len(path.parts), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.chmod(stat.S_IMODE(self._modes[path]) | stat.S_IRUSR | stat.S_IXUSR)

    def _place(self, name: str) -> Path:
        """Return the path of an entry; the folder that it is in exists then."""
        pure = PurePosixPath(name)
        if pure.is_absolute():
            raise UnsafeError(f"{name!r} is an absolute path")
        if ".." in pure.parts:
            raise UnsafeError(f"{name!r} leads out of it")
        if not pure.parts:
            raise UnsafeError(f"the entry {name!r} has no name")
        parent = self._parents.get(pure.parts[:-1]) or self._parent(name, pure.parts[:-1])
        return parent / pure.parts[-1]

    def _parent(self, name: str, parts: tuple[str, ...]) -> Path:
        here = self._root
        for part in parts:
            here /= part
            if here.is_symlink():
                real = os.path.realpath(here)
                if real != self._real and not real.startswith(f"{self._real}/"):
                    raise UnsafeError(f"{name!r} leads out of it through a link")
                here = Path(real)
            if not os.path.lexists(here):
                here.mkdir(mode=0o755)
        self._parents[parts] = here
        return here

    def _clear(self, path: Path) -> None:
        if path.is_symlink():
            self._parents.clear()
            path.unlink()
        elif path.is_dir():
            self._parents.clear()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def unpack(stream: Stream, tree: Tree, spend: Spend) -> Iterator[float]:
    """Write what is in a tar to `tree`; yield the time of each file, in seconds since the epoch.

    Memory is bounded, whatever the tar holds.

    Raises:
        UnsafeError: an entry would leave the folder, or is neither a folder, a file nor a link.
        DamagedError, tarfile.TarError, ValueError: it is not a tar, or is damaged or incomplete.
    """
    forward = _Forward(stream)
    with tarfile.open(fileobj=forward, mode="r:") as tar:
        while member := _next(tar, forward):
            if member.size < 0:
                raise DamagedError(f"{member.name!r} has a negative size")
            spend(member.size)
            if member.isdir():
                tree.folder(member.name, member.mode)
            elif member.issym():
                tree.symlink(member.name, member.linkname)
            elif member.islnk():
                tree.hard_link(member.name, member.linkname)
            elif member.isfile():
                tree.file(member.name, _content(tar, member, forward), member.mode)
                yield member.mtime
            else:
                raise UnsafeError(f"{member.name!r} is neither a file, a folder nor a link")
    tree.finish()


def _next(tar: tarfile.TarFile, forward: "_Forward") -> tarfile.TarInfo | None:
    forward.begin_entry()
    member = tar.next()
    # tarfile keeps every entry, for which this has no use.
    tar.members.clear()  # type: ignore[attr-defined]
    if len(tar.pax_headers) > _GLOBALS or sum(map(len, tar.pax_headers.values())) > _HEADER:
        raise UnsafeError("it has too many headers for all entries")
    if member is None and any(forward.last_header):
        # tarfile takes a damaged header for the end.
        raise DamagedError("a header is damaged")
    return member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, forward: "_Forward") -> Iterator[bytes]:
    file = tar.extractfile(member)
    assert file is not None
    with forward.contents():
        while chunk := file.read(CHUNK):
            yield chunk


class _Forward(io.RawIOBase):
    """What tarfile reads from: only forward, and only as many bytes of headers as folders of sources have."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._at = stream, 0
        self._headers, self._of_entry = 0, 0
        self._in_contents = False
        self.last_header = b""

    def begin_entry(self) -> None:
        """Say that what is read next are headers of another entry."""
        self._of_entry = 0

    @contextmanager
    def contents(self) -> Iterator[None]:
        """Read contents meanwhile, which are counted elsewhere."""
        self._in_contents = True
        yield
        self._in_contents = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _HEADER:
            raise UnsafeError(f"it has a header of more than {_HEADER // 1024**2} MiB")
        data = self._stream.read(size)
        self._at += len(data)
        if not self._in_contents:
            self.last_header = data
            self._count(len(data))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise DamagedError("its entries overlap")
        while left := offset - self._at:
            skipped = len(self._stream.read(min(left, CHUNK)))
            if not skipped:
                break
            self._at += skipped
            # Less than a block between contents and the next header; more belongs to nothing that is unpacked.
            self._count(skipped)
        return self._at

    def tell(self) -> int:
        return self._at

    def _count(self, size: int) -> None:
        self._headers += size
        self._of_entry += size
        if self._of_entry > _HEADER or self._headers > _HEADERS:
            raise UnsafeError(f"it has headers of more than {_HEADER // 1024**2} MiB, or {_HEADERS // 1024**2} in all")
