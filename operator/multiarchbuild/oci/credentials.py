"""Credentials of registries, from Secrets of type kubernetes.io/dockerconfigjson.

Source: https://kubernetes.io/docs/concepts/containers/images/#config-json, the kubelet's keyring
(k8s.io/kubernetes/pkg/credentialprovider), and docker/cli's config file.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from multiarchbuild.api.foreign import NonsenseError, parse_json

from .names import DOCKER_HUB, Repository, canonical_host

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Under this key docker's own tools look for the credentials of Docker Hub."""


_TOKEN = re.compile(r"[!-~]*")
_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")


class InvalidConfigError(ValueError):
    """A text is not a docker config file, or an entry of one is unusable; the message never quotes credentials."""

    def __init__(self, message: str, config: int = 0) -> None:
        super().__init__(message)
        self.config = config
        """Position of the config file among those that were loaded."""


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
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode(errors="surrogateescape")).decode()


@dataclass(frozen=True, slots=True)
class Entry:
    """What one config file says about one registry, or about some of its repositories."""

    host: str
    """Host and port; its labels may be patterns, as `*.dkr.ecr.*.amazonaws.com`."""
    path: str
    """Beginning of the paths of repositories, whole components; empty for all."""
    credentials: Credentials | None
    """None where the file names the registry without credentials: those are in the store of another machine."""
    error: str = ""
    """Why the entry cannot be used; it does not quote it."""
    config: int = 0
    """Position of the config file among those that were loaded."""
    exchange: Callable[[], Credentials] | None = field(default=None, compare=False)
    """Returns credentials that are good for a while, in exchange for something else."""

    @property
    def logs_in(self) -> bool:
        """Whether there are credentials."""
        return self.credentials is not None or self.exchange is not None

    @property
    def is_pattern(self) -> bool:
        """Whether it is for several hosts."""
        return any(character in self.host for character in "*?[")

    def is_for(self, repository: Repository) -> bool:
        """Return whether it applies to `repository`, as the kubelet decides but for whole components of the path."""
        if f"{repository.path}/".startswith(f"{self.path}/" if self.path else ""):
            return _matches(self.host, repository.registry)
        return False


@dataclass(frozen=True, slots=True)
class Keychain:
    """Credentials by registry or by registry and the beginning of a path, the most specific first."""

    entries: tuple[Entry, ...] = ()
    helpers: Mapping[str, str] = field(default_factory=dict)
    """Credential helper by host; that for all hosts has the key "". None of them can be run here."""

    @classmethod
    def load(cls, configs: Iterable[str]) -> Self:
        """Return the credentials in `configs`, docker config files; of two for one key the first counts.

        An entry that cannot be used is an error only where it is needed.

        Raises:
            InvalidConfigError: a text is not JSON, or not a docker config file.
        """
        entries: list[Entry] = []
        helpers: dict[str, str] = {}
        for number, text in enumerate(configs):
            document = _document(text)
            entries += [_parse(key, entry, number) for key, entry in _object(document, "auths").items()]
            store = document.get("credsStore")
            named = _object(document, "credHelpers") | ({"": store} if store else {})
            for host, helper in named.items():
                helpers.setdefault(canonical_host(host), str(helper))
        return cls(_ordered(entries), helpers)

    def with_exchanges(self, entries: Iterable[Entry]) -> Self:
        """Return these credentials and `entries`, which go first where something else is for the same repositories."""
        return replace(self, entries=_ordered([*entries, *self.entries]))

    def find(self, repository: Repository) -> Credentials | None:
        """Return the credentials for `repository`, or None where there are none.

        Raises:
            InvalidConfigError: there are, but they cannot be used.
        """
        found = [entry for entry in self.entries if entry.is_for(repository)]
        for entry in found:
            if credentials := entry.exchange() if entry.exchange else entry.credentials:
                return credentials
        if bad := next((entry for entry in found if entry.error), None):
            raise InvalidConfigError(bad.error, bad.config)
        return None

    def missing_helper(self, repository: Repository) -> str:
        """Return the credential helper that would have the credentials for `repository`, or nothing.

        That is one for its host, or the store of a file that names the host without credentials, as `docker login`
        leaves it.
        """
        if helper := self.helpers.get(repository.registry):
            return helper
        logged_in = any(entry.is_for(repository) and not entry.error for entry in self.entries)
        return self.helpers.get("", "") if logged_in else ""

    def hosts_by_path(self) -> tuple[str, ...]:
        """Return the registries of which some repositories have a login of their own."""
        hosts = (entry.host for entry in self.entries if entry.logs_in and entry.path and not entry.is_pattern)
        return tuple(dict.fromkeys(hosts))

    def hosts_by_exchange(self) -> tuple[str, ...]:
        """Return the registries with credentials that are good for a while."""
        return tuple(dict.fromkeys(entry.host for entry in self.entries if entry.exchange))

    def docker_config(
        self,
        repositories: Iterable[Repository],
        given: Mapping[str, Credentials] | None = None,
        helpers: Mapping[str, str] | None = None,
    ) -> str:
        """Return a docker config file for tools that look credentials up by host alone.

        The hosts of `repositories` get what `find` says for them, the first repository of a host counts. `given` has
        what hosts get instead, and `helpers` the credential helpers by host that are asked instead.
        """
        chosen: dict[str, Credentials] = dict(given or {})
        helped = dict(helpers or {})
        for repository in repositories:
            if repository.registry not in {*chosen, *helped} and (credentials := self.find(repository)):
                chosen[repository.registry] = credentials
        for entry in self.entries:
            if entry.credentials and not entry.path and not entry.is_pattern and entry.host not in helped:
                chosen.setdefault(entry.host, entry.credentials)
        auths = {
            _DOCKER_HUB_KEY if host == DOCKER_HUB else host: _entry(credentials) for host, credentials in chosen.items()
        }
        return json.dumps({"auths": auths, "credHelpers": helped} if helped else {"auths": auths})


def _ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    # Reversed, as in the kubelet: of two beginnings of one name the longer one, and names before patterns.
    return tuple(sorted(entries, key=lambda entry: f"{entry.host}/{entry.path}", reverse=True))


def _matches(pattern: str, host: str) -> bool:
    """Return whether a host is one of `pattern`, of which each label is one of Go's path.Match."""
    labels, port = _labels(pattern)
    own, own_port = _labels(host)
    return (port, len(labels)) == (own_port, len(own)) and all(
        fnmatchcase(label, each.replace("[^", "[!")) for each, label in zip(labels, own, strict=True)
    )


def _labels(host: str) -> tuple[list[str], str]:
    name, colon, port = host.rpartition(":")
    return (name if colon else host).split("."), port if colon else ""


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = parse_json(text, "the file")
    except NonsenseError as error:
        # Without the words of the parser, which may quote it.
        raise InvalidConfigError("it is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidConfigError("it is not a docker config file, which is an object with `auths`")
    return document


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidConfigError(f"it is not a docker config file: `{name}` must be an object")
    return value or {}


def _parse(key: str, entry: Any, number: int) -> Entry:
    host, path = _location(key)
    try:
        return Entry(host, path, _credentials(key, entry), config=number)
    except InvalidConfigError as error:
        return Entry(host, path, None, str(error), number)


def _location(key: str) -> tuple[str, str]:
    """Return host and path in a key, which is a host or a URL; that of an API, `/v1/` or `/v2/`, is no path."""
    rest = re.split("[?#]", key.partition("://")[2] or key, maxsplit=1)[0]
    host, _, path = rest.partition("/")
    path = re.sub("^v[12](/|$)", "", path).strip("/")
    return canonical_host(host.rpartition("@")[2]), path


def _credentials(key: str, entry: Any) -> Credentials | None:
    if entry is not None and not isinstance(entry, dict):
        raise InvalidConfigError(f"`auths` of {key!r} must be an object")
    # As Go reads JSON: names in any case, null for nothing; what is not known is passed over.
    values = {name.lower(): value for name, value in (entry or {}).items() if value is not None}
    known = {name: values.get(name, "") for name in _FIELDS}
    if wrong := next((name for name, value in known.items() if not isinstance(value, str)), None):
        raise InvalidConfigError(f"`{wrong}` of {key!r} must be a string")
    username, password = known["username"], known["password"]
    if auth := known["auth"]:
        username, password = _decode(key, auth)
    if any(not _TOKEN.fullmatch(known[name]) for name in ("identitytoken", "registrytoken")):
        raise InvalidConfigError(f"a token of {key!r} must be one line of letters, digits and punctuation")
    found = Credentials(username, password, known["identitytoken"], known["registrytoken"])
    return found if found != Credentials() else None


def _decode(key: str, auth: str) -> tuple[str, str]:
    """Return user and password in `auth`, base64 with or without padding and with line breaks anywhere."""
    text = re.sub(r"[\r\n]", "", auth).strip().rstrip("=")
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise InvalidConfigError(f"`auth` of {key!r} is not base64") from error
    # A password may be of any bytes; they are sent as they are.
    username, colon, password = decoded.decode(errors="surrogateescape").partition(":")
    if not colon:
        raise InvalidConfigError(f"`auth` of {key!r} is not user:password in base64")
    return username, password.rstrip("\0")


def _entry(credentials: Credentials) -> dict[str, str]:
    entry = {"identitytoken": credentials.identity_token, "registrytoken": credentials.registry_token}
    if credentials.username:
        entry["auth"] = credentials.basic().removeprefix("Basic ")
    return {name: value for name, value in entry.items() if value}
