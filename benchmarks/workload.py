"""What every contestant builds: the same files for the same platforms with the same options."""

from enum import StrEnum

PLATFORMS = ("linux/amd64", "linux/arm64")
TAG = "latest"

_DOCKERFILE = """\
FROM node:20-alpine
WORKDIR /app
RUN node -p process.arch > arch
COPY server.js .
RUN node --check server.js
CMD ["node", "server.js"]
"""
_SERVER = """\
require("node:http")
  .createServer((_, response) => response.end("%s\\n"))
  .listen(3000);
"""


class Case(StrEnum):
    """The builds of a round, in their order."""

    COLD = "cold"
    """New builders, nothing in the cache."""
    REBUILD = "rebuild"
    """The same once more."""
    CHANGED = "changed"
    """server.js changed: the COPY and the RUN after it have to run again."""


def files(case: Case) -> dict[str, str]:
    """Return the build context by path."""
    greeting = "hello, once more" if case is Case.CHANGED else "hello"
    return {"Dockerfile": _DOCKERFILE, "server.js": _SERVER % greeting}


def arch(platform: str) -> str:
    """Return the `kubernetes.io/arch` of nodes that build `platform`."""
    return platform.partition("/")[2]
