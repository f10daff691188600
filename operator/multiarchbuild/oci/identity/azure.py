"""Azure: a token of Microsoft Entra by a federated credential, which the registry exchanges for one of its own.

Source: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow (a federated credential),
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md (POST /oauth2/exchange).
"""

import base64
import time
from urllib.parse import quote

from multiarchbuild.api.foreign import parse_object
from multiarchbuild.oci.credentials import Credentials

from . import Exchange, Exchanged, requests

_USER = "00000000-0000-0000-0000-000000000000"
"""User of a login whose password is a refresh token."""
_LIFE = 3600


def login(exchange: Exchange) -> Exchanged:
    """Return the login of one registry."""
    identity, ours = exchange.identity, exchange.identities.azure
    url = f"{ours.authority}/{quote(identity.tenant_id or '')}/oauth2/v2.0/token"
    fields = {
        "grant_type": "client_credentials",
        "client_id": identity.role or "",
        "scope": ours.scope,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": exchange.token(),
    }
    found = requests.document(requests.form(exchange.http, url, fields))
    access = requests.text(found, "access_token", url)
    url = f"{'http' if exchange.plain_http else 'https'}://{exchange.host}/oauth2/exchange"
    fields = {
        "grant_type": "access_token",
        "service": exchange.host,
        "tenant": identity.tenant_id or "",
        "access_token": access,
    }
    found = requests.document(requests.form(exchange.registry, url, fields))
    refresh = requests.text(found, "refresh_token", url)
    return Exchanged(Credentials(_USER, refresh), _seconds_left(refresh))


def _seconds_left(token: str) -> int:
    """Return how long a JSON web token is good for; an hour where it does not say it."""
    try:
        claims = token.split(".")[1]
        document = parse_object(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), "the token")
        return min(max(int(document["exp"] - time.time()), 1), requests.LONGEST)
    except (IndexError, KeyError, TypeError, ValueError):
        return _LIFE
