"""What is in each image: data only, so that the content key of an image is the content of this description.

The images are stand-ins: they carry well-known names and hold Debian's packages. Those that are named after Alpine have
busybox for a shell and glibc for a C library.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.build.debian import Suite
from tests.cluster.build.oci import Settings
from tests.cluster.build.programs import MODULES, module_version

ARCHITECTURES = ("amd64", "arm64")
PAUSE_REFERENCE = "registry.k8s.io/pause:3.10.1"


@dataclass(frozen=True)
class Directory:
    """A directory."""

    path: str
    mode: int = 0o755
    uid: int = 0


@dataclass(frozen=True)
class Text:
    """A file with this text."""

    path: str
    text: str


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True)
class ProgramFile:
    """A program that is compiled here, for the image's architecture."""

    path: str
    program: str


@dataclass(frozen=True)
class NodeModule:
    """A package of Node's registry, for ``usr/local/lib/node_modules``; ``integrity`` is the registry's own."""

    name: str
    version: str
    integrity: str


class Special(enum.Enum):
    """What is computed when the layer is made."""

    TRUST = "the certificate authorities that this machine trusts"
    BUSYBOX_APPLETS = "a link for each command that busybox has"
    PIP = "pip; no module is compiled, as in the image of Docker Hub"


Entry = Directory | Text | Link | ProgramFile | NodeModule | Special


@dataclass(frozen=True)
class LayerRecipe:
    """How one layer is made.

    Attributes:
        name: what people see while it is built.
        suite: whose packages.
        bootstrap: a whole configured Debian system, rather than files of packages.
        packages: packages wanted, with what they depend on, unpacked and not configured.
        without: packages that are left out although something depends on them.
        below: the layer whose packages are not repeated.
        exclude: patterns of paths that are left out.
        capabilities: paths of packaged files that get a file capability, with the number of the capability.
        entries: what is added.
    """

    name: str
    suite: Suite = Suite.TRIXIE
    bootstrap: bool = False
    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    below: LayerRecipe | None = None
    exclude: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, int], ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class ImageRecipe:
    """One image: its name in the registry (``library/node:20-alpine``), its layers from the lowest up, its settings."""

    name: str
    layers: tuple[LayerRecipe, ...]
    settings: Settings = field(default_factory=Settings)


def file_capability(number: int) -> bytes:
    """Return the extended attribute that makes one capability permitted and effective.

    Source: struct vfs_cap_data, revision 2, in linux/capability.h.
    """
    revision_and_effective = 0x02000001
    return struct.pack("<IIIII", revision_and_effective, 1 << number, 0, 0, 0)


CAP_SETGID, CAP_SETUID = 6, 7

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_SYSTEM_GROUPS = "root:x:0:\ntty:x:5:\nshadow:x:42:\nnobody:x:65534:\n"

TRUST = LayerRecipe("trust", entries=(Special.TRUST,))

BOOKWORM = LayerRecipe(
    "debian bookworm",
    Suite.BOOKWORM,
    bootstrap=True,
    exclude=(
        "etc/hostname",
        "etc/resolv.conf",
        "var/cache/apt/*.bin",
        "var/cache/ldconfig/*",
        "var/lib/apt/lists/*_*",
        "var/log/*.log",
        "var/log/apt/*",
    ),
)
TRIXIE = LayerRecipe("debian trixie", Suite.TRIXIE, bootstrap=True, exclude=BOOKWORM.exclude)

BUSYBOX = LayerRecipe(
    "busybox",
    packages=("busybox-static",),
    entries=(
        *(Directory(path) for path in ("dev", "proc", "sys", "mnt", "opt", "srv", "run", "usr/lib", "usr/lib64")),
        *(Directory(path) for path in ("usr/sbin", "usr/local/bin", "home", "var/cache", "var/lib", "var/log")),
        *(Link(name, f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
        Directory("root", mode=0o700),
        Directory("tmp", mode=0o1777),
        Directory("var/tmp", mode=0o1777),
        Text("etc/passwd", _SYSTEM_USERS),
        Text("etc/group", _SYSTEM_GROUPS),
        Text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        Special.BUSYBOX_APPLETS,
    ),
)
LIBC = LayerRecipe(
    "libc",
    below=BUSYBOX,
    packages=("libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    without=("gcc-14-base",),
)
NODE = LayerRecipe(
    "node",
    below=LIBC,
    packages=("nodejs",),
    without=("node-corepack", "openssl-provider-legacy"),
    entries=(
        NodeModule(
            "yarn",
            "1.22.22",
            "sha512-prL3kGtyG7o9Z9Sv8IPfBNrWTDmXB4Qbes8A9rEzt6wkJV8mUvoirjU0Mp3GGAU06Y0XQyA3/2/RQFVuK7MTfg==",
        ),
        NodeModule(
            "npm",
            "10.8.2",
            "sha512-x/AIjFIKRllrhcb48dqUNAAZl0ig9+qMuN91RpZo3Cb2+zuibfh+KISl6+kVVyktDz230JKc208UkQwwMqyB+w==",
        ),
        *(Link(f"usr/local/bin/{name}", f"../lib/node_modules/npm/bin/{name}-cli.js") for name in ("npm", "npx")),
        *(Link(f"usr/local/bin/{name}", "../lib/node_modules/yarn/bin/yarn.js") for name in ("yarn", "yarnpkg")),
        Link("usr/local/bin/node", "../../bin/node"),
        Text("usr/local/lib/node_modules/npm/npmrc", "prefix=/usr/local\n"),
        Text("etc/passwd", f"{_SYSTEM_USERS}node:x:1000:1000::/home/node:/bin/sh\n"),
        Text("etc/group", f"{_SYSTEM_GROUPS}node:x:1000:\n"),
        Directory("home/node", uid=1000),
    ),
)
PYTHON = LayerRecipe(
    "python",
    below=TRIXIE,
    packages=("python3", "python3-venv"),
    without=("ca-certificates", "openssl"),
    exclude=("usr/lib/python3*/EXTERNALLY-MANAGED",),
    entries=(Link("usr/local/bin/python", "../../bin/python3"), Special.PIP),
)
BUILDKIT = LayerRecipe(
    "buildkit",
    below=LIBC,
    packages=("git", "openssh-client", "pigz", "runc", "uidmap", "xz-utils"),
    without=(
        "adduser",
        "debconf",
        "dpkg",
        "git-man",
        "libdb5.3t64",
        "liberror-perl",
        "libgdbm-compat4t64",
        "libgdbm6t64",
        "libpam-runtime",
        "libperl5.40",
        "login.defs",
        "openssl-provider-legacy",
        "passwd",
        "perl",
        "perl-base",
        "perl-modules-5.40",
        "tar",
    ),
    capabilities=(("usr/bin/newuidmap", CAP_SETUID), ("usr/bin/newgidmap", CAP_SETGID)),
    entries=(
        *(ProgramFile(f"usr/bin/{name}", name) for name in ("buildkitd", "buildctl", "rootlesskit")),
        Link("usr/bin/buildkit-runc", "../sbin/runc"),
        Text("etc/passwd", f"{_SYSTEM_USERS}user:x:1000:1000::/home/user:/bin/sh\n"),
        Text("etc/group", f"{_SYSTEM_GROUPS}user:x:1000:\n"),
        Text("etc/subuid", "user:100000:65536\n"),
        Text("etc/subgid", "user:100000:65536\n"),
        Directory("etc/buildkit"),
        Directory("run/user/1000", mode=0o700, uid=1000),
        *(Directory(f"home/user{path}", uid=1000) for path in ("", "/.config", "/.local", "/.local/share")),
        *(Directory(f"home/user/.local/{path}", uid=1000) for path in ("tmp", "share/buildkit")),
        Link("home/user/.config/buildkit", "/etc/buildkit"),
    ),
)
PAUSE = LayerRecipe("pause", entries=(ProgramFile("pause", "pause"),))
PAUSE_SETTINGS = Settings(env={"PATH": _PATH}, entrypoint=("/pause",), user="65535:65535")

_SHELL = Settings(env={"PATH": _PATH}, cmd=("/bin/sh",))
_DEBIAN_SHELL = Settings(env={"PATH": _PATH}, cmd=("bash",))
_PYTHON = Settings(env={"PATH": _PATH, "LANG": "C.UTF-8"}, cmd=("python3",))
_BUILDKIT_ROOTLESS = Settings(
    env={
        "PATH": _PATH,
        "HOME": "/home/user",
        "USER": "user",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "TMPDIR": "/home/user/.local/tmp",
        "BUILDKIT_HOST": "unix:///run/user/1000/buildkit/buildkitd.sock",
    },
    entrypoint=("rootlesskit", "buildkitd"),
    user="1000:1000",
    volumes=("/home/user/.local/share/buildkit",),
)


def image_recipes() -> tuple[ImageRecipe, ...]:
    """Return every image of the registry; BuildKit's carry the version that its go.mod pins."""
    buildkit = module_version((MODULES / "buildkit" / "go.mod").read_text(), "github.com/moby/buildkit")
    buildkit_layers = (BUSYBOX, LIBC, TRUST, BUILDKIT)
    python = (TRIXIE, TRUST, PYTHON)
    return (
        ImageRecipe("library/busybox:1.36", (BUSYBOX,), _SHELL),
        ImageRecipe("library/alpine:3.22", (BUSYBOX, LIBC, TRUST), _SHELL),
        ImageRecipe(
            "library/node:20-alpine",
            (BUSYBOX, LIBC, TRUST, NODE),
            Settings(
                # Node has its own list of authorities and adds this one.
                env={"PATH": _PATH, "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt"},
                cmd=("node",),
            ),
        ),
        ImageRecipe(
            f"moby/buildkit:{buildkit}",
            buildkit_layers,
            Settings(env={"PATH": _PATH}, entrypoint=("buildkitd",), volumes=("/var/lib/buildkit",)),
        ),
        ImageRecipe(f"moby/buildkit:{buildkit}-rootless", buildkit_layers, _BUILDKIT_ROOTLESS),
        ImageRecipe("library/debian:bookworm-slim", (BOOKWORM, TRUST), _DEBIAN_SHELL),
        ImageRecipe("library/debian:trixie-slim", (TRIXIE, TRUST), _DEBIAN_SHELL),
        ImageRecipe("library/python:3.13-slim", python, _PYTHON),
        ImageRecipe("library/python:3.12-slim", python, _PYTHON),
    )


def host_trust() -> tuple[Path, tuple[Path, ...]]:
    """Return this machine's bundle of authorities and the certificates its administrator added."""
    return (
        Path("/etc/ssl/certs/ca-certificates.crt"),
        tuple(sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))),
    )
