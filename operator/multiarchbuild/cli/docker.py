"""The user's own credentials: ~/.docker/config.json with the helpers that it names, and podman's auth.json.

Sources: https://docs.docker.com/reference/cli/docker/login/#credential-stores and
https://github.com/docker/docker-credential-helpers (the protocol: the registry on standard input, JSON on standard
output); https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md for the files of podman, buildah
and skopeo, which have the same format.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from multiarchbuild.api.foreign import parse_object
from multiarchbuild.oci.credentials import Credentials, InvalidConfigError, Keychain
from multiarchbuild.oci.names import DOCKER_HUB, Repository, canonical_host

from .errors import UsageError

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN = "<token>"  # noqa: S105 - the user name that says: the secret is an identity token
_NONE = ("credentials not found in native keychain", "no credentials server URL")
"""How every helper says that it knows nothing."""
_PATIENCE = 60
"""Seconds for a helper, which may ask the user or a cloud."""


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """What docker's config file says about logging in."""

    path: Path
    keychain: Keychain = field(default_factory=Keychain)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)
    """Helper by registry, before the store."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what the file at `path` says, nothing where there is none.

        Raises:
            UsageError: it is not a docker config file.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: it is not JSON, which is UTF-8") from error
        try:
            keychain = Keychain.load([text])
            document = parse_object(text, str(path))
        except InvalidConfigError as error:
            raise UsageError(f"{path}: {error}") from error
        helpers = document.get("credHelpers") or {}
        return cls(
            path,
            keychain,
            str(document.get("credsStore") or ""),
            {canonical_host(host): str(helper) for host, helper in helpers.items()},
        )

    def find(self, repository: Repository) -> Credentials | None:
        """Return the credentials for `repository`, or None where the user has none.

        Raises:
            UsageError: a helper is missing or fails, or the entry for it in the file is unusable.
        """
        helper = self.helpers.get(repository.registry) or self.store
        found = self._ask(helper, repository.registry) if helper else None
        try:
            return found or self.keychain.find(repository)
        except InvalidConfigError as error:
            raise UsageError(f"{self.path}: {error}") from error

    def _ask(self, helper: str, registry: str) -> Credentials | None:
        program = f"docker-credential-{helper}"
        server = _DOCKER_HUB_KEY if registry == DOCKER_HUB else registry
        try:
            done = subprocess.run(  # noqa: S603 - the program that the user's own config names
                [program, "get"],
                input=server,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except FileNotFoundError as error:
            raise UsageError(f"{self.path} names the credential helper {program}, which is not on PATH") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"the credential helper {program} failed: {error}") from error
        if done.returncode:
            said = (done.stdout or done.stderr).strip()
            if any(text in said for text in _NONE):
                return None
            raise UsageError(f"the credential helper {program} failed for {server}: {said or done.returncode}")
        return _read(done.stdout, program)


@dataclass(frozen=True, slots=True)
class Logins:
    """All files that may know the user's credentials, the first that does counts."""

    files: tuple[DockerConfig, ...]

    @classmethod
    def load(cls) -> Self:
        """Return the files of docker and podman; `$REGISTRY_AUTH_FILE`, which names one for all of them, goes first.

        Raises:
            UsageError: one of them is not a docker config file.
        """
        return cls(tuple(DockerConfig.load(path) for path in dict.fromkeys(_paths())))

    @property
    def path(self) -> Path:
        """Where a program that logs in should write to."""
        return self.files[0].path

    def find(self, repository: Repository) -> Credentials | None:
        """Return the credentials for `repository`, or None where the user has none.

        Raises:
            UsageError: a helper is missing or fails, or the entry for it in a file is unusable.
        """
        return next((found for file in self.files if (found := file.find(repository)) is not None), None)


def _paths() -> Iterator[Path]:
    home = Path.home()
    if own := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(own)
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"


def _read(answer: str, program: str) -> Credentials:
    try:
        document = parse_object(answer, "the answer")
        user, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the credential helper {program} did not answer with user and secret") from error
    return Credentials(identity_token=secret) if user == _TOKEN else Credentials(user, secret)
