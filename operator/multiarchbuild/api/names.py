"""Names and references that several parts of the spec share, each with the rule that holds it to its form."""

from typing import Annotated

from pydantic import AfterValidator, Field

from .base import Model
from .schema import Rule, matches

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        rf"{_LABEL}(\.{_LABEL})*",
        "the name of a Kubernetes object consists of lower-case letters, digits, '-' and '.', and begins and "
        "ends with a letter or digit",
    ),
]
"""RFC 1123 subdomain."""

_REGISTRY = rf"((localhost|{_LABEL}(\.{_LABEL})+)(:[0-9]{{1,5}})?|{_LABEL}:[0-9]{{1,5}})"
_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"[a-z0-9.-]+(:[0-9]{{1,5}})?(/{_COMPONENT})+"

REPOSITORY_PATTERN = rf"{_REGISTRY}(/{_COMPONENT})+"
"""Name of a repository with the registry spelled out."""

ImageRepository = Annotated[
    str,
    Field(min_length=3, max_length=255),
    matches(
        _REPOSITORY,
        "must be registry/repository in lower case without tag or digest, such as "
        "registry.example.com/team-a/app; tags are written into output.tags",
    ),
    Rule(
        rf"!self.matches(r'^{_REPOSITORY}$') || self.matches(r'^{_REGISTRY}/')",
        "must begin with the host of a registry, such as ghcr.io; for Docker Hub write docker.io/<user>/<name>",
    ),
]
"""Name of a repository as `docker buildx build --output name=` takes it, with the registry always spelled out.

Source: https://github.com/distribution/reference/blob/main/reference.go.
"""

ArtifactImage = Annotated[
    str,
    Field(min_length=3, max_length=400),
    matches(
        rf"{_REPOSITORY}(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}|@sha256:[0-9a-f]{{64}})",
        "must be registry/repository:tag or registry/repository@sha256:<64 hexadecimal digits>, without oci://",
    ),
    Rule(
        rf"!self.matches(r'^{_REPOSITORY}[:@]') || self.matches(r'^{_REGISTRY}/')",
        "must begin with the host of a registry, such as ghcr.io; for Docker Hub write docker.io/<user>/<name>",
    ),
]
"""An artifact in a registry, by tag or by digest."""

_INSIDE = "!self.startsWith('/') && !self.split('/').exists(part, part == '..')"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character: no program can be given one")
    return text


NO_NUL = AfterValidator(_without_nul)
"""What becomes an argument, an environment variable or a path. The API server takes \\u0000 in any string."""


def relative_path(message: str, *, also: str = "") -> Rule:
    """Return the rule that a path stays inside the source; `also` is a further condition in CEL."""
    return Rule(f"{_INSIDE} && {also}" if also else _INSIDE, message)


class NameRef(Model):
    """A Secret in the build's own namespace."""

    name: ObjectName
    """Name of the Secret."""


class KeyRef(Model):
    """One key of a Secret in the build's own namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[
        str,
        Field(min_length=1, max_length=253),
        matches("[-._a-zA-Z0-9]+", "a key of a Secret consists of letters, digits, '-', '_' and '.'"),
    ]
    """Key in the Secret."""
