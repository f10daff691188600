"""Google Cloud: workload identity federation, or the metadata server, then a service account where one is named.

Source: https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token,
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken,
https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys, and for the login
https://cloud.google.com/artifact-registry/docs/docker/authentication#token.
"""

import datetime as dt
import json
from urllib.parse import quote

from multiarchbuild.oci.credentials import Credentials

from . import Exchange, Exchanged, requests

_USER = "oauth2accesstoken"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LIFE = 3600


def login(exchange: Exchange) -> Exchanged:
    """Return the login of all registries that the identity may use."""
    federated = exchange.identity.workload_identity_provider
    token, seconds = _federated(exchange, federated) if federated else _of_node(exchange)
    if exchange.identity.role:
        token, seconds = _impersonated(exchange, exchange.identity.role, token)
    return Exchanged(Credentials(_USER, token), seconds)


def _federated(exchange: Exchange, provider: str) -> tuple[str, int]:
    url = f"{exchange.identities.google.sts}/v1/token"
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": f"//iam.googleapis.com/{provider}",
        "scope": _SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": exchange.token(),
    }
    found = requests.document(requests.form(exchange.http, url, fields))
    return requests.text(found, "access_token", url), requests.seconds(found, "expires_in", _LIFE)


def _of_node(exchange: Exchange) -> tuple[str, int]:
    url = f"{exchange.identities.google.metadata}/computeMetadata/v1/instance/service-accounts/default/token"
    found = requests.document(requests.send(exchange.near, "GET", url, {"Metadata-Flavor": "Google"}))
    return requests.text(found, "access_token", url), requests.seconds(found, "expires_in", _LIFE)


def _impersonated(exchange: Exchange, account: str, token: str) -> tuple[str, int]:
    base = exchange.identities.google.iam_credentials
    url = f"{base}/v1/projects/-/serviceAccounts/{quote(account)}:generateAccessToken"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    body = json.dumps({"scope": [_SCOPE], "lifetime": f"{_LIFE}s"})
    found = requests.document(requests.send(exchange.http, "POST", url, headers, body))
    return requests.text(found, "accessToken", url), _until(str(found.get("expireTime", "")))


def _until(time: str) -> int:
    """Return the seconds until an RFC 3339 time; less than what was asked for where it cannot be read."""
    try:
        left = dt.datetime.fromisoformat(time) - dt.datetime.now(dt.UTC)
    except (ValueError, TypeError):
        return _LIFE // 2
    return max(int(left.total_seconds()), 1)
