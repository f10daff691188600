"""AWS: a role of IAM by web identity, then the login of ECR.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html,
https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html, and for the signature
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from multiarchbuild.api.identity import ecr_region
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.errors import RefusedError

from . import Exchange, Exchanged, requests

_LIFE = 12 * 3600
"""Seconds that a login of ECR is good for where it does not say it."""
_TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a session of a role."""

    key_id: str
    secret: str = field(repr=False)
    session: str = field(repr=False, default="")


def login(exchange: Exchange) -> Exchanged:
    """Return the login of the registries of a region."""
    ours = exchange.identities.aws
    region, domain = ecr_region(exchange.host) or (ours.region, "amazonaws.com")
    keys = _assume_role(exchange, (ours.sts or f"https://sts.{{region}}.{domain}").replace("{region}", region))
    url = (ours.ecr or f"https://api.ecr.{{region}}.{domain}").replace("{region}", region) + "/"
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": _TARGET}
    signed = sign("POST", url, headers, "{}", keys, region=region, service="ecr", now=dt.datetime.now(dt.UTC))
    found = requests.document(requests.send(exchange.http, "POST", url, signed, "{}"))
    try:
        (entry, *_) = found["authorizationData"]
        decoded = base64.b64decode(entry["authorizationToken"], validate=True).decode()
        left = float(entry.get("expiresAt") or 0) - dt.datetime.now(dt.UTC).timestamp()
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise RefusedError(f"{urlsplit(url).netloc} sent no authorizationToken") from error
    user, _, password = decoded.partition(":")
    return Exchanged(Credentials(user, password), int(min(left, _LIFE)) if left > 0 else _LIFE)


def _assume_role(exchange: Exchange, url: str) -> Keys:
    fields = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": exchange.identity.role or "",
        "RoleSessionName": re.sub(r"[^\w+=,.@-]", "-", exchange.session, flags=re.ASCII)[:64],
        "WebIdentityToken": exchange.token(),
    }
    answer = requests.form(exchange.http, f"{url}/", fields)
    body = answer.body.decode(errors="replace")

    def part(name: str) -> str:
        found = re.search(f"<{name}>([^<]+)</{name}>", body)
        if found is None:
            raise RefusedError(f"{urlsplit(url).netloc} sent no {name}")
        return html.unescape(found[1].strip())

    return Keys(part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken"))


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: str,
    keys: Keys,
    *,
    region: str,
    service: str,
    now: dt.datetime,
) -> dict[str, str]:
    """Return `headers` with a signature (version 4); the query of `url` must be in order, and encoded."""
    parts, stamp = urlsplit(url), now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": stamp} | ({"X-Amz-Security-Token": keys.session} if keys.session else {})
    canonical = {name.lower(): value.strip() for name, value in {**sent, "Host": parts.netloc}.items()}
    names = ";".join(sorted(canonical))
    lines = "".join(f"{name}:{canonical[name]}\n" for name in sorted(canonical))
    request = "\n".join([method, parts.path or "/", parts.query, lines, names, _hash(body)])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    key = f"AWS4{keys.secret}".encode()
    for each in scope.split("/"):
        key = hmac.digest(key, each.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, _hash(request)])
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={keys.key_id}/{scope}"
    return sent | {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
