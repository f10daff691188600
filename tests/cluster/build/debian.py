"""Debian's packages for any architecture: which are needed, their files, a whole base system.

Nothing is installed on the machine: apt works in a private directory with its own lists and status.
"""

from __future__ import annotations

import enum
import fnmatch
import os
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from tests.cluster.build import binfmt
from tests.cluster.build.commands import Commands
from tests.cluster.build.errors import BuildError

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_EMULATOR_ENTRY = "mab-build-aarch64"
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_NEVER_SHIPPED = (
    "dev/*",
    "usr/share/bug/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/locale/*",
    "usr/share/man/*",
)


class Suite(enum.StrEnum):
    """A Debian release."""

    BOOKWORM = "bookworm"
    TRIXIE = "trixie"


@dataclass(frozen=True)
class Mirror:
    """Where Debian's packages come from: the archive and the security archive, as URIs."""

    archive: str
    security: str

    def sources(self, suite: Suite) -> tuple[str, ...]:
        """Return the lines of a sources.list for a release."""
        options = f"[signed-by={_KEYRING}]"
        return (
            f"deb {options} {self.archive} {suite} main",
            f"deb {options} {self.archive} {suite}-updates main",
            f"deb {options} {self.security} {suite}-security main",
        )


def parse_mirror(targets: str) -> Mirror | None:
    """Return the mirror in the output of ``apt-get indextargets`` (URI, release, label per line, split by tabs)."""
    found: dict[str, str] = {}
    for line in targets.splitlines():
        uri, release, label = [*line.split("\t"), "", ""][:3]
        if label == "Debian" and "-" not in release:
            found.setdefault("archive", uri.rstrip("/"))
        elif label == "Debian-Security":
            found.setdefault("security", uri.rstrip("/"))
    if "archive" not in found:
        return None
    return Mirror(found["archive"], found.get("security", f"{found['archive']}-security"))


def host_mirror() -> Mirror:
    """Return the mirror that this machine's own apt uses. Raises BuildError when it knows none of Debian's."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)\t$(RELEASE)\t$(LABEL)"]
    for attempt in range(2):
        targets = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        mirror = parse_mirror(targets)
        if mirror is not None:
            return mirror
        if attempt == 0:
            # Labels are in the lists, which a fresh machine has not fetched.
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
    raise BuildError("apt on this machine has no Debian archive among its sources: add one to /etc/apt/sources.list.d.")


@dataclass(frozen=True)
class Package:
    """One package as apt chose it: its name and the name of its file."""

    name: str
    file_name: str


def parse_print_uris(output: str) -> tuple[Package, ...]:
    """Return the packages in the output of ``apt-get install --print-uris``, in its order."""
    packages = []
    for line in output.splitlines():
        words = line.split()
        if line.startswith("'") and len(words) >= 3:
            packages.append(Package(unquote(words[1]).split("_")[0], words[1]))
    return tuple(packages)


class Apt:
    """A private apt for one release and architecture, in a directory of its own.

    ``installed`` is the dpkg status file of a system that the packages are meant for: what it has is not chosen again.
    """

    def __init__(self, directory: Path, suite: Suite, arch: str, mirror: Mirror, commands: Commands) -> None:
        self._directory = directory / f"{suite}-{arch}"
        self._task = f"packages {suite} {arch}"
        self._commands = commands
        self._updated = False
        for name in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        self._empty_status = self._directory / "no-packages"
        self._empty_status.touch()
        (self._directory / "sources.list").write_text("\n".join(mirror.sources(suite)) + "\n")
        root = self._directory
        settings = {
            "APT::Architecture": arch,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
            "Dir::Cache": f"{root}/cache",
            "Dir::Etc": f"{root}/etc",
            "Dir::Etc::sourcelist": f"{root}/sources.list",
            "Dir::State": f"{root}/state",
            "Dir::State::status": str(self._empty_status),
        }
        lines = [f'{name} "{value}";' for name, value in settings.items()]
        (root / "apt.conf").write_text("\n".join([f'APT::Architectures {{ "{arch}"; }};', *lines]) + "\n")

    def resolve(self, names: Collection[str], installed: Path | None = None) -> tuple[Package, ...]:
        """Return the packages that have to be added for these to work, recommended ones left out."""
        self._update()
        answer = subprocess.run(
            [
                "apt-get",
                "-o",
                f"Dir::State::status={installed or self._empty_status}",
                "install",
                "-y",
                "-qq",
                "--print-uris",
                *sorted(names),
            ],
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        if answer.returncode != 0:
            raise BuildError(f"apt finds no way to have {', '.join(names)} ({self._task}): {answer.stderr.strip()}")
        return parse_print_uris(answer.stdout)

    def download(self, packages: Collection[Package]) -> list[Path]:
        """Return the packages' files in this order, fetched and verified against the release's signature."""
        self._update()
        # Not apt's own archives: what is there, --print-uris leaves out.
        archives = self._directory / "packages"
        wanted = [package for package in packages if not (archives / package.file_name).exists()]
        if wanted:
            partial = archives / "partial"
            partial.mkdir(parents=True, exist_ok=True)
            self._commands.run(
                self._task,
                ["apt-get", "download", "-q", *(package.name for package in wanted)],
                cwd=partial,
                env=self._environment(),
            )
            for package in wanted:
                (partial / package.file_name).rename(archives / package.file_name)
        return [archives / package.file_name for package in packages]

    def _update(self) -> None:
        if not self._updated:
            self._commands.run(self._task, ["apt-get", "update", "-q"], env=self._environment())
            self._updated = True

    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._directory / "apt.conf"), "LC_ALL": "C"}


def bootstrap(
    output: Path,
    suite: Suite,
    arch: str,
    mirror: Mirror,
    commands: Commands,
    *,
    native: bool,
    include: Collection[str] = (),
) -> None:
    """Write a minimal Debian system that has apt and what `include` names, every package configured, as a tar file.

    A foreign architecture's maintainer scripts run under QEMU, registered for as long as that takes.
    """
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        f"--architectures={arch}",
        *([f"--include={','.join(include)}"] if include else []),
        *(f"--dpkgopt=path-exclude=/{pattern}" for pattern in _NEVER_SHIPPED if pattern.startswith("usr/")),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--format=tar",
        suite,
        str(output),
        *mirror.sources(suite),
    ]
    if not native:
        command = binfmt.command_with(arch, _EMULATOR_ENTRY, command)
    # Not the caller's TMPDIR: a path that is long or unreadable for others breaks apt's unprivileged downloads.
    commands.run(f"debian {suite} {arch}", command, env={"TMPDIR": "/tmp", "PYTHONPATH": os.pathsep.join(_roots())})


def _roots() -> list[str]:
    return [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]


def is_shipped(path: str, exclude: Collection[str] = ()) -> bool:
    """Return whether a path of a package belongs into an image: no documentation, no devices, nothing excluded."""
    if path.startswith("usr/share/doc/") and path.endswith("/copyright"):
        return True
    return not any(fnmatch.fnmatchcase(path, pattern) for pattern in (*_NEVER_SHIPPED, *exclude))


def merged_path(path: str) -> str:
    """Return where a path is on a system whose /bin, /lib and /sbin are links into /usr."""
    path = path.removeprefix("./").strip("/")
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def package_entries(deb: Path, exclude: Collection[str] = ()) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield the entries of a package that belong into an image, their paths as on a system with a merged /usr.

    An entry's content must be read before the next one is asked for.
    """
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpacked:
        if unpacked.stdout is None:
            raise BuildError(f"dpkg-deb gives no output for {deb}")
        try:
            with tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive:
                yield from _image_entries(archive, exclude)
        except tarfile.ReadError as error:
            raise BuildError(f"dpkg-deb cannot unpack {deb}: delete it and try again") from error
        # dpkg-deb pads its output; it must be read to the end for dpkg-deb to end well.
        unpacked.stdout.read()
    if unpacked.returncode != 0:
        raise BuildError(f"dpkg-deb cannot unpack {deb}: delete it and try again")


def system_entries(tar: Path, exclude: Collection[str] = ()) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield the entries of a base system that belong into an image."""
    with tarfile.open(tar) as archive:
        yield from _image_entries(archive, exclude, merge=False)


def _image_entries(
    archive: tarfile.TarFile, exclude: Collection[str], *, merge: bool = True
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    for entry in archive:
        name = merged_path(entry.name) if merge else entry.name.removeprefix("./").strip("/")
        if name in ("", ".") or entry.isdev() or not is_shipped(name, exclude):
            continue
        entry.name = name
        if entry.islnk():
            entry.linkname = merged_path(entry.linkname) if merge else entry.linkname.removeprefix("./")
        yield entry, archive.extractfile(entry) if entry.isreg() else None
