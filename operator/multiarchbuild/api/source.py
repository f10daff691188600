"""`spec.source`: where the build context comes from."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field

from . import limits
from .base import Model
from .names import NO_NUL, NameRef, relative_path
from .schema import Rule, keys_match, matches, model_rules

MAX_INLINE_BYTES = 256 * 1024
"""Bytes that all inline files may have together: they live in the resource and in a ConfigMap."""

_SEGMENT = r"([A-Za-z0-9_@+-]|\.[A-Za-z0-9_@+-]|\.\.[A-Za-z0-9_.@+-])[A-Za-z0-9_.@+-]*"


def _reachable(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a host, and a port only as :1 to :65535")
    return url


def _files_beside_folders(files: dict[str, str]) -> dict[str, str]:
    for path in files:
        above = path.rpartition("/")[0]
        while above:
            if above in files:
                raise ValueError(f"{above!r} cannot be a file and, for {path!r}, a folder: rename one of them")
            above = above.rpartition("/")[0]
    return files


class GitSource(Model):
    """A git repository over http or https."""

    url: Annotated[
        str,
        Field(min_length=1, max_length=2048),
        NO_NUL,
        AfterValidator(_reachable),
        matches(
            r"https?://[^\s#]+",
            "must be an http:// or https:// URL without spaces or '#': write the branch, tag or commit into "
            "git.ref and the folder into git.subdirectory",
        ),
        Rule(
            "!self.matches(r'^[a-z]+://[^/]*@')",
            "must not hold a user or password: put them into a Secret and name it in git.secretRef",
        ),
    ]
    """URL of the repository."""
    ref: Annotated[
        str,
        Field(min_length=1, max_length=limits.REF),
        Rule(
            "self.matches(r'^[A-Za-z0-9_][A-Za-z0-9_./+@-]*$') && !self.contains('..') && !self.endsWith('.lock')",
            "must be a branch, a tag, a commit or a full name such as refs/heads/main",
        ),
    ] = "HEAD"
    """Branch, tag or commit, such as main, v1.2.0 or refs/pull/7/head. HEAD is the repository's default branch."""
    subdirectory: Annotated[
        str,
        Field(max_length=1024),
        NO_NUL,
        relative_path(
            "must be a relative path inside the repository, without '..' or ':'",
            also="!self.contains(':')",
        ),
    ] = ""
    """Folder of the repository that is the build context; by default its root."""
    secret_ref: NameRef | None = None
    """Secret with `username` and `password` (type kubernetes.io/basic-auth), or with `token`."""


class InlineSource(Model):
    """Files in the resource itself, for small things and examples."""

    files: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_INLINE_BYTES)]],
        Field(min_length=1, max_length=64),
        AfterValidator(_files_beside_folders),
        keys_match(
            f"{_SEGMENT}(/{_SEGMENT})*",
            "each name must be a relative path such as src/index.js, without '..' or '.', of at most 253 characters",
            longest=253,
        ),
        Rule(
            f"self.map(path, self[path].size()).sum() <= {MAX_INLINE_BYTES}",
            "may hold at most 256 KiB together: put a larger source into git",
        ),
    ]
    """Content of each file by its path."""


class Source(Model):
    """Where the build context comes from: exactly one kind."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "[has(self.git), has(self.inline)].filter(named, named).size() == 1",
                "must name exactly one of git and inline",
            )
        )
    )

    git: GitSource | None = None
    """A git repository over http or https."""
    inline: InlineSource | None = None
    """Files in the resource itself, for small things and examples."""
