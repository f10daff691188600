"""How a registry wants to be logged in to: HTTP basic, or a bearer token from its token server.

Source: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/; RFC 9110, section 11.6.1, for the
header, in which a registry may offer several ways.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode

import urllib3

from multiarchbuild.api.foreign import parse_object

from .credentials import Credentials
from .errors import DeniedError, RefusedError
from .http import Answer, ask

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PIECE = re.compile(rf'({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))|({_NAME})')
"""A parameter with its value in quotes or without, or else the name of a scheme."""
_TOKEN = re.compile(r"[!-~]+")
"""What may stand in a header (RFC 9110, section 5.5)."""
_CLIENT_ID = "multiarchbuild"
_SECONDS = 60
"""How long a token is good for of which its server does not say it (distribution's token spec, `expires_in`)."""
_LONGEST = 10 * 365 * 24 * 3600


@dataclass(slots=True)
class Authenticator:
    """Keeps the Authorization header for one repository."""

    http: urllib3.PoolManager
    credentials: Credentials | None
    plain_http: bool = False
    """Whether the registry itself is spoken to without TLS."""
    renew: Callable[[], Credentials | None] | None = None
    """Returns the credentials as they are by now."""
    headers: dict[str, str] = field(default_factory=dict)
    """What to send with every request."""

    def __post_init__(self) -> None:
        if self.credentials and self.credentials.registry_token:
            self.headers = {"Authorization": f"Bearer {self.credentials.registry_token}"}

    def answer(self, challenge: str, *scopes: str) -> None:
        """Log in as `challenge`, the WWW-Authenticate header of a 401, asks for; with a token where there is a choice.

        Raises:
            DeniedError: there is nothing to log in with, or the token server refuses it.
            RefusedError: the token server answers with an error of its own, or must not be given the credentials.
            urllib3.exceptions.HTTPError: it cannot be reached.
        """
        schemes = challenges(challenge)
        if self.renew:
            self.credentials = self.renew()
        bearer = schemes.get("bearer", {})
        if "realm" in bearer:
            token = fetch_token(
                self.http,
                self.credentials,
                bearer["realm"],
                bearer.get("service", ""),
                scopes,
                plain_http=self.plain_http,
            )
            self.headers = {"Authorization": f"Bearer {token.value}"}
        elif "basic" in schemes and self.credentials and self.credentials.username:
            self.headers = {"Authorization": self.credentials.basic()}


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server hands out."""

    value: str = field(repr=False)
    seconds: int
    """How long it is good for."""


def fetch_token(
    http: urllib3.PoolManager,
    credentials: Credentials | None,
    realm: str,
    service: str,
    scopes: Sequence[str],
    *,
    plain_http: bool = False,
) -> Token:
    """Return a token for `scopes` from the token server at `realm`, without credentials one for everybody.

    Raises:
        DeniedError: the server refuses the credentials.
        RefusedError: it answers with an error of its own, or must not be given the credentials.
        urllib3.exceptions.HTTPError: it cannot be reached.
    """
    if not realm.startswith(("https://", "http://") if plain_http else "https://"):
        raise RefusedError(f"the token server {realm} is not asked: credentials are sent by https only")
    if credentials and credentials.registry_token:
        return Token(credentials.registry_token, _SECONDS)
    if credentials and credentials.identity_token:
        form = {
            "service": service,
            "scope": " ".join(scopes),
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "client_id": _CLIENT_ID,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        # Not elsewhere: the refresh token is in the body, which a redirect would carry to any host.
        answer = ask(http, "POST", realm, body=urlencode(form), headers=headers, redirect=False)
    else:
        headers = {"Authorization": credentials.basic()} if credentials and credentials.username else {}
        separator = "&" if "?" in realm else "?"
        query = urlencode({"service": service, "scope": scopes}, doseq=True)
        answer = ask(http, "GET", f"{realm}{separator}{query}", headers=headers)
    return _read(answer, realm)


def challenges(header: str) -> dict[str, dict[str, str]]:
    """Return the parameters of each scheme in a WWW-Authenticate header; names are in lower case.

    Of a scheme that is offered twice the first counts.
    """
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for name, quoted, plain, scheme in _PIECE.findall(header):
        if scheme:
            parameters = {}
            found.setdefault(scheme.lower(), parameters)
        else:
            parameters.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted))
    return found


def _read(answer: Answer, realm: str) -> Token:
    if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise DeniedError(f"the token server {realm} refused the credentials ({answer.status})")
    if answer.status != HTTPStatus.OK:
        raise RefusedError(f"the token server {realm} answered {answer.status}")
    try:
        document = parse_object(answer.body, f"the answer of {realm}")
        token = str(document.get("token") or document["access_token"])
    except (ValueError, KeyError) as error:
        raise RefusedError(f"the token server {realm} sent no token") from error
    if not _TOKEN.fullmatch(token):
        raise RefusedError(f"the token server {realm} sent a token that no header can hold")
    seconds = document.get("expires_in")
    return Token(token, min(seconds, _LONGEST) if isinstance(seconds, int) and seconds > 0 else _SECONDS)
