"""`spec.source`: where the build context comes from."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field

from . import limits
from .base import Model
from .durations import Duration
from .identity import Identity
from .names import NO_NUL, ArtifactImage, NameRef, ObjectName, relative_path
from .schema import ATOMIC, Rule, keys_match, matches, model_rules

MAX_INLINE_BYTES = 256 * 1024
"""Bytes (UTF-8) that all inline files may have together: they live in the resource and in the run's ConfigMap."""

_TOO_LARGE = "put a larger source into git (source.git) or a registry (source.oci, kubectl mab build)"

_SEGMENT = r"([A-Za-z0-9_@+-]|\.[A-Za-z0-9_@+-]|\.\.[A-Za-z0-9_.@+-])[A-Za-z0-9_.@+-]*"

Subdirectory = Annotated[
    str,
    Field(max_length=1024),
    NO_NUL,
    relative_path("must be a relative path inside the source, without '..' or ':'", also="!self.contains(':')"),
]
"""Folder of a source."""


def _reachable(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a host, and a port only as :1 to :65535")
    return url


def _small_text(files: dict[str, str]) -> dict[str, str]:
    if with_nul := next((path for path, text in files.items() if "\0" in text), None):
        raise ValueError(f"{with_nul!r} holds a NUL character and so is not text: put it into git or a registry")
    size = sum(len(text.encode(errors="surrogatepass")) for text in files.values())
    if size > MAX_INLINE_BYTES:
        raise ValueError(f"has {size} bytes, of at most {MAX_INLINE_BYTES}: {_TOO_LARGE}")
    return files


def _files_beside_folders(files: dict[str, str]) -> dict[str, str]:
    for path in files:
        above = path.rpartition("/")[0]
        while above:
            if above in files:
                raise ValueError(f"{above!r} cannot be a file and, for {path!r}, a folder: rename one of them")
            above = above.rpartition("/")[0]
    return files


_Interval = Annotated[
    Duration,
    Rule(
        "!self.matches(r'^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || duration(self) >= duration('10s')",
        "must be at least 10s: each look at the repository is a pod",
    ),
]
"""How long after one look at the source the next one is due."""


_PATTERN_HELP = (
    "must be a path from the root of the repository, such as services/api or libs/**/*.go, without a slash at its "
    "beginning or end, '.', '..', '!', brackets, braces or backslashes"
)


class GitSource(Model):
    """A git repository over http, https or ssh."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!self.url.startsWith('ssh://') || has(self.secretRef)",
                "an ssh:// URL needs git.secretRef: name a Secret with ssh-privatekey (or identity) and known_hosts",
                field=".url",
            ),
            Rule(
                "!has(self.interval) || !self.ref.matches(r'^([0-9a-f]{40}|[0-9a-f]{64})$')",
                "a commit never moves: remove git.interval, or name a branch in git.ref",
                field=".interval",
            ),
            Rule(
                "!has(self.keepGitDir) || !self.keepGitDir || !has(self.subdirectory) || "
                "self.subdirectory in ['', '.']",
                ".git is in the root of the repository, and with git.subdirectory outside of the build context: remove "
                "git.keepGitDir, or build from the root with build.dockerfile",
                field=".keepGitDir",
            ),
        )
    )

    url: Annotated[
        str,
        Field(min_length=1, max_length=2048),
        NO_NUL,
        AfterValidator(_reachable),
        matches(
            r"(https?|ssh)://[^\s#]+",
            "must be an http://, https:// or ssh:// URL without spaces or '#': write git@host:path as "
            "ssh://git@host/path, the branch, tag or commit into git.ref and the folder into git.subdirectory",
        ),
        Rule(
            "!self.matches(r'^(https?://[^/]*@|ssh://[^/@]*:[^/]*@)')",
            "must not hold a user or password: put them into a Secret and name it in git.secretRef",
        ),
        Rule(
            "!self.startsWith('ssh://') || self.matches(r'^ssh://([A-Za-z0-9_][A-Za-z0-9_.-]*@)?"
            r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/.+$') || self.matches(r'^ssh://[^/@]*:[^/]*@')",
            "must be ssh://user@host/path, with the port as host:port where it is not 22",
        ),
    ]
    """URL of the repository."""
    ref: Annotated[
        str,
        Field(min_length=1, max_length=limits.REF),
        NO_NUL,
        Rule(
            r"self.matches(r'^[^\x00-\x20\x7f~^:?*\[\\]+$') && !self.matches(r'(^-|^/|//|/$|\.$|\.\.|@\{|^@$)') && "
            r"!self.matches(r'(^|/)\.') && !self.matches(r'\.lock(/|$)')",
            "must be a branch, a tag, a commit or a full name such as refs/heads/main, with the characters that git "
            "allows (git check-ref-format)",
        ),
    ] = "HEAD"
    """Branch, tag or commit, such as main, v1.2.0 or refs/pull/7/head. HEAD is the repository's default branch. Where a
    branch and a tag have the same name it is the branch; the tag is refs/tags/<name>."""
    subdirectory: Subdirectory = ""
    """Folder of the repository that is the build context; by default its root."""
    keep_git_dir: bool = False
    """Whether `.git` is in the build context: the one commit, without history and tags, for what asks git about it."""
    secret_ref: NameRef | None = None
    """Secret with `username` and `password` (type kubernetes.io/basic-auth), with `token`, which is sent as a password,
    or with `bearerToken`; for ssh with `ssh-privatekey` (type kubernetes.io/ssh-auth) or Flux's `identity`, and with
    `known_hosts`."""
    interval: _Interval | None = None
    """How often to look whether the branch or tag has moved, such as 5m; a run starts when it has. By default never."""


class HttpSource(Model):
    """An archive at a URL: tar, plain or compressed with gzip, bzip2, xz or Zstandard, or zip."""

    url: Annotated[
        str,
        Field(min_length=1, max_length=2048),
        NO_NUL,
        AfterValidator(_reachable),
        matches(r"https?://[^\s#]+", "must be an http:// or https:// URL without spaces or '#'"),
        Rule(
            "!self.matches(r'^[a-z]+://[^/]*@')",
            "must not hold a user or password: put them into a Secret and name it in http.secretRef",
        ),
    ]
    """URL of the archive."""
    checksum: Annotated[
        str,
        Field(max_length=71),
        matches("sha256:[0-9a-f]{64}", "must be sha256:<64 hexadecimal digits>, as sha256sum prints them"),
    ]
    """SHA-256 of the archive: it pins what is built, and nothing is unpacked that differs."""
    subdirectory: Subdirectory = ""
    """Folder of the archive that is the build context; by default its root."""
    secret_ref: NameRef | None = None
    """Secret with `username` and `password` (type kubernetes.io/basic-auth), or with a bearer `token`."""


class OciSource(Model):
    """An OCI artifact of one layer, a tar (plain, .gz, .zst), as `flux push artifact` and `kubectl mab build` push."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!has(self.interval) || !self.image.contains('@')",
                "a digest never moves: remove oci.interval, or name a tag in oci.image",
                field=".interval",
            ),
        )
    )

    image: ArtifactImage
    """Artifact by digest or tag, such as registry.example.com/team-a/app-source@sha256:…; a tag is resolved to a
    digest once for each run. It is pulled with the credentials of output.secretRefs."""
    subdirectory: Subdirectory = ""
    """Folder of the artifact that is the build context; by default its root."""
    identity: Identity | None = None
    """Identity of a cloud that logs in to its registry, where it is another than that of output.image."""
    interval: _Interval | None = None
    """How often to look whether the tag has moved, such as 5m; a run starts when it has. By default never."""


class FluxKind(StrEnum):
    """Kinds of Flux that have an artifact."""

    GIT_REPOSITORY = "GitRepository"
    OCI_REPOSITORY = "OCIRepository"
    BUCKET = "Bucket"
    EXTERNAL_ARTIFACT = "ExternalArtifact"


class FluxSource(Model):
    """The artifact of an object of source.toolkit.fluxcd.io/v1 in the same namespace; a new revision starts a run."""

    kind: FluxKind
    """Its kind."""
    name: ObjectName
    """Its name."""
    subdirectory: Subdirectory = ""
    """Folder of the artifact that is the build context; by default its root."""


class InlineSource(Model):
    """Files in the resource itself, for small things and examples."""

    files: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_INLINE_BYTES)]],
        Field(min_length=1, max_length=64),
        AfterValidator(_files_beside_folders),
        AfterValidator(_small_text),
        keys_match(
            f"{_SEGMENT}(/{_SEGMENT})*",
            "each name must be a relative path of letters, digits and _.@+-, such as src/index.js, without '..' or "
            "'.', of at most 253 characters",
            longest=253,
        ),
        Rule(
            f"self.map(path, bytes(self[path]).size()).sum() <= {MAX_INLINE_BYTES}",
            f"may hold at most 256 KiB (UTF-8) together: {_TOO_LARGE}",
        ),
    ]
    """Content of each file by its path."""


PathPattern = Annotated[
    str,
    Field(min_length=1, max_length=255),
    NO_NUL,
    matches(r"[^/!\\\[\]{}\x00-\x1f]([^\\\[\]{}\x00-\x1f]*[^/\\\[\]{}\x00-\x1f])?", _PATTERN_HELP),
    Rule("!self.split('/').exists(part, part in ['', '.', '..'])", _PATTERN_HELP),
]
"""Names files of a repository by their paths from its root."""


class Paths(Model):
    """Which files of a repository an image is made from."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "has(self.include) && self.include.size() > 0 || has(self.exclude) && self.exclude.size() > 0",
                "must name something: write source.paths.include, such as [services/api], or remove source.paths",
            )
        )
    )

    include: Annotated[tuple[PathPattern, ...], Field(max_length=32), ATOMIC] = ()
    """Files and folders, such as services/api or libs/**/*.go; by default all. `*` stands for any characters but a
    slash, `**` for any folders. A folder means all that is in it. The Dockerfile is always included."""
    exclude: Annotated[tuple[PathPattern, ...], Field(max_length=32), ATOMIC] = ()
    """Files and folders that do not count although they are included, such as docs or **/*.md."""


class Source(Model):
    """Where the build context comes from: exactly one kind."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "[has(self.git), has(self.http), has(self.oci), has(self.flux), has(self.inline)]"
                ".filter(named, named).size() == 1",
                "must name exactly one of git, http, oci, flux and inline",
            ),
            Rule(
                "!has(self.paths) || has(self.git) || has(self.flux)",
                "commits and revisions of Flux are looked at by their files: remove source.paths, or use source.git or "
                "source.flux",
            ),
        )
    )

    git: GitSource | None = None
    """A git repository over http, https or ssh."""
    http: HttpSource | None = None
    """An archive at a URL, pinned by its checksum."""
    oci: OciSource | None = None
    """An OCI artifact, as Flux and the CLI push it."""
    flux: FluxSource | None = None
    """The artifact of a Flux object in the same namespace."""
    inline: InlineSource | None = None
    """Files in the resource itself, for small things and examples."""
    paths: Paths | None = None
    """Files of git and Flux sources that the image is made from: another commit or revision that changes none of them
    starts no run. By default all count."""
