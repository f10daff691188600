"""Credentials of registries, from Secrets of type kubernetes.io/dockerconfigjson.

Source: https://kubernetes.io/docs/concepts/containers/images/#config-json and docker/cli's config file.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from .names import DOCKER_HUB, Repository, canonical_host

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Under this key docker's own tools look for the credentials of Docker Hub."""


_TOKEN = re.compile(r"[!-~]*")


class InvalidConfigError(ValueError):
    """A text is not a docker config file; the message says why and never quotes the text."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in to one registry: user and password, or a token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Refresh token of OAuth 2 (docker's `identitytoken`)."""
    registry_token: str = field(default="", repr=False)
    """Bearer token that is sent as it is (docker's `registrytoken`)."""

    def basic(self) -> str:
        """Return the value of an Authorization header of HTTP basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Keychain:
    """Credentials by registry or by registry and the beginning of a path."""

    entries: Mapping[str, Credentials] = field(default_factory=dict)

    @classmethod
    def load(cls, configs: Iterable[str]) -> Self:
        """Return the credentials in `configs`, docker config files; of two for one registry the first counts.

        Credential helpers (`credsStore`, `credHelpers`) are passed over: they are programs of the machine
        where the file was written.

        Raises:
            InvalidConfigError: a text is not JSON, or not a docker config file.
        """
        entries: dict[str, Credentials] = {}
        for text in configs:
            for key, entry in _auths(text).items():
                if credentials := _credentials(key, entry):
                    entries.setdefault(_normalise(key), credentials)
        return cls(entries)

    def find(self, repository: Repository) -> Credentials | None:
        """Return the credentials for `repository`; of several entries the one with the longest path counts."""
        name = str(repository)
        while True:
            if credentials := self.entries.get(name):
                return credentials
            name, slash, _ = name.rpartition("/")
            if not slash:
                return None

    def docker_config(self, repositories: Iterable[Repository]) -> str:
        """Return a docker config file for tools that look credentials up by host alone.

        The hosts of `repositories` get what `find` says for them, the first repository of a host counts.
        """
        hosts = {name: entry for name, entry in self.entries.items() if "/" not in name}
        chosen: dict[str, Credentials] = {}
        for repository in repositories:
            if credentials := self.find(repository):
                chosen.setdefault(repository.registry, credentials)
        auths = {
            _DOCKER_HUB_KEY if host == DOCKER_HUB else host: _entry(credentials)
            for host, credentials in {**hosts, **chosen}.items()
        }
        return json.dumps({"auths": auths})


def _auths(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfigError("it is not JSON") from error
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise InvalidConfigError("it is not a docker config file: `auths` must be an object")
    return auths


def _credentials(key: str, entry: Any) -> Credentials | None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise InvalidConfigError(f"`auths` of {key!r} must be an object of strings")
    username, password = entry.get("username", ""), entry.get("password", "")
    if auth := entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(auth.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidConfigError(f"`auth` of {key!r} is not base64") from error
        if not colon:
            raise InvalidConfigError(f"`auth` of {key!r} is not user:password in base64")
        password = password.rstrip("\0")
    if any(not _TOKEN.fullmatch(entry.get(name, "")) for name in ("identitytoken", "registrytoken")):
        raise InvalidConfigError(f"a token of {key!r} must be one line of letters, digits and punctuation")
    found = Credentials(username, password, entry.get("identitytoken", ""), entry.get("registrytoken", ""))
    return found if found != Credentials() else None


def _normalise(key: str) -> str:
    url = urlsplit(key if "://" in key else f"https://{key}")
    path = url.path.strip("/")
    host = canonical_host(url.netloc)
    return host if path in ("", "v1", "v2") else f"{host}/{path}"


def _entry(credentials: Credentials) -> dict[str, str]:
    entry = {"identitytoken": credentials.identity_token, "registrytoken": credentials.registry_token}
    if credentials.username:
        entry["auth"] = credentials.basic().removeprefix("Basic ")
    return {name: value for name, value in entry.items() if value}
