"""One question over HTTP and its answer, with bounds: no server makes a step read without end."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

LIMIT: Final = 4 * 1024 * 1024
"""Bytes of the largest manifest that registries must accept (distribution spec, "Pushing Manifests")."""

_TRIES = 3
"""How often a body is begun that breaks off; urllib3 repeats only what fails before it."""
_PORTS = {"http": 80, "https": 443}


class TooLargeError(HTTPError):
    """An answer of more than LIMIT bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, after all redirects."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    url: str
    """Where the answer is from."""


def ask(
    http: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | str | BinaryIO | None = None,
    retries: urllib3.Retry | bool | None = None,
    redirect: bool = True,
) -> Answer:
    """Return the answer; a redirect to another origin is followed without Authorization (urllib3's Retry).

    Raises:
        HTTPError: there is none, or it is too large.
    """
    for left in reversed(range(_TRIES)):
        if body is not None and not isinstance(body, bytes | str):
            body.seek(0)
        response = http.request(
            method, url, headers=headers, body=body, retries=retries, redirect=redirect, preload_content=False
        )
        try:
            data = response.read(LIMIT + 1)
        except HTTPError:
            response.close()
            if not left or retries is False:
                raise
            continue
        if len(data) > LIMIT:
            response.close()
            raise TooLargeError(f"the answer is larger than {LIMIT} bytes")
        response.release_conn()
        return Answer(response.status, response.reason or "", response.headers, data, _final(url, response))
    raise AssertionError("unreachable")


def same_origin(one: str, other: str) -> bool:
    """Return whether two URLs have scheme, host and port in common (RFC 6454)."""
    origin = _origin(one)
    return origin is not None and origin == _origin(other)


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return parts.scheme, parts.hostname or "", port


def _final(url: str, response: urllib3.BaseHTTPResponse) -> str:
    for past in response.retries.history if response.retries else ():
        if past.redirect_location:
            url = urljoin(url, past.redirect_location)
    return url


def cause(error: HTTPError) -> str:
    """Return what is behind an error of urllib3, without the representation of a connection that it puts before it."""
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if reason.args and isinstance(reason.args[0], ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {reason.args[0].verify_message}"
    text = str(reason)
    return text.partition(">: ")[2] or text.partition("): ")[2] or text
