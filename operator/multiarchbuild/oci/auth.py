"""How a registry wants to be logged in to: HTTP basic, or a bearer token from its token server.

Source: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/
"""

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode

import urllib3

from .credentials import Credentials
from .errors import DeniedError, RefusedError
from .http import Answer, ask

_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_TOKEN = re.compile(r"[!-~]+")
"""What may stand in a header (RFC 9110, section 5.5)."""
_CLIENT_ID = "multiarchbuild"


@dataclass(slots=True)
class Authenticator:
    """Keeps the Authorization header for one repository."""

    http: urllib3.PoolManager
    credentials: Credentials | None
    plain_http: bool = False
    """Whether the registry itself is spoken to without TLS."""
    headers: dict[str, str] = field(default_factory=dict)
    """What to send with every request."""

    def __post_init__(self) -> None:
        if self.credentials and self.credentials.registry_token:
            self.headers = {"Authorization": f"Bearer {self.credentials.registry_token}"}

    def answer(self, challenge: str, scope: str) -> None:
        """Log in as `challenge`, the WWW-Authenticate header of a 401, asks for.

        Raises:
            DeniedError: there is nothing to log in with, or the token server refuses it.
            RefusedError: the token server answers with an error of its own, or must not be given the credentials.
            urllib3.exceptions.HTTPError: it cannot be reached.
        """
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(_PARAMETER.findall(rest))
        if scheme.lower() == "bearer" and "realm" in parameters:
            self.headers = {"Authorization": f"Bearer {self._token(parameters, scope)}"}
        elif self.credentials and self.credentials.username:
            self.headers = {"Authorization": self.credentials.basic()}

    def _token(self, parameters: dict[str, str], scope: str) -> str:
        realm, credentials = parameters["realm"], self.credentials
        if not realm.startswith(("https://", "http://") if self.plain_http else "https://"):
            raise RefusedError(f"the token server {realm} is not asked: credentials are sent by https only")
        query = {"service": parameters.get("service", ""), "scope": scope}
        if credentials and credentials.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "client_id": _CLIENT_ID,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            # Not elsewhere: the refresh token is in the body, which a redirect would carry to any host.
            answer = ask(self.http, "POST", realm, body=urlencode(form), headers=headers, redirect=False)
        else:
            headers = {"Authorization": credentials.basic()} if credentials and credentials.username else {}
            separator = "&" if "?" in realm else "?"
            answer = ask(self.http, "GET", f"{realm}{separator}{urlencode(query)}", headers=headers)
        return _read(answer, realm)


def _read(answer: Answer, realm: str) -> str:
    if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise DeniedError(f"the token server {realm} refused the credentials ({answer.status})")
    if answer.status != HTTPStatus.OK:
        raise RefusedError(f"the token server {realm} answered {answer.status}")
    try:
        document = json.loads(answer.body)
        token = str(document.get("token") or document["access_token"])
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RefusedError(f"the token server {realm} sent no token") from error
    if not _TOKEN.fullmatch(token):
        raise RefusedError(f"the token server {realm} sent a token that no header can hold")
    return token
