"""Names of repositories, as `docker` writes them.

Source: https://github.com/distribution/reference/blob/main/normalize.go
"""

from dataclasses import dataclass
from typing import Self

DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"
_DOCKER_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", _DOCKER_HUB_API})


def canonical_host(host: str) -> str:
    """Return the registry's host as image names write it: every alias of Docker Hub is docker.io."""
    host = host.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_ALIASES else host


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of one registry."""

    registry: str
    """Host, with port where it is not the default."""
    path: str
    """Path of the repository in the registry."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the repository that `name` (`registry/path`, a tag or digest is cut off) means."""
        name = name.partition("@")[0]
        first, slash, rest = name.partition("/")
        if not slash or ("." not in first and ":" not in first and first != "localhost"):
            first, rest = DOCKER_HUB, name
        if ":" in (last := rest.rpartition("/")[2]):
            rest = rest[: len(rest) - len(last) + last.index(":")]
        first = canonical_host(first)
        return cls(first, f"library/{rest}" if first == DOCKER_HUB and "/" not in rest else rest)

    @property
    def api_host(self) -> str:
        """Host that serves the distribution API."""
        return _DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"
