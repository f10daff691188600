"""One question over HTTP and its answer, with bounds: no server makes a step read without end."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, ProxyError

from .proxies import Proxies

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


class Connections(urllib3.PoolManager):
    """Connections that go through the proxies of the environment, each request and each redirect by its own host."""

    def __init__(self, proxies: Proxies, **options: Any) -> None:
        """Take what urllib3's PoolManager takes; `proxies` says what goes where."""
        super().__init__(**options)
        self.proxies = proxies
        self._options, self._via = options, dict[str, urllib3.PoolManager]()

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]  # noqa: FBT001, FBT002 - as urllib3 has it
        """Send a request, see urllib3."""
        proxy = self.proxies.of(url)
        if proxy is None:
            return super().urlopen(method, url, redirect, **options)
        if proxy not in self._via:
            self._via[proxy] = _Through(proxy, self, self._options)
        return self._via[proxy].urlopen(method, url, redirect, **options)


class _Through(urllib3.ProxyManager):
    """Connections through one proxy."""

    def __init__(self, url: str, whole: Connections, options: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
        super().__init__(url, proxy_headers=headers, **options)
        self._url, self._whole = url, whole

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]  # noqa: FBT001, FBT002 - as urllib3 has it
        # urllib3 follows redirects here, where another host may be reached in another way.
        if self._whole.proxies.of(url) != self._url:
            return self._whole.urlopen(method, url, redirect, **options)
        return super().urlopen(method, url, redirect, **options)


def connections(ca_file: str | None, **options: Any) -> urllib3.PoolManager:
    """Return connections that trust `ca_file` (the system's CAs without one); further options are urllib3's."""
    proxies = Proxies.read(os.environ)
    options["ca_certs"] = ca_file
    return Connections(proxies, **options) if proxies.by_scheme else urllib3.PoolManager(**options)


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
    if isinstance(reason, ProxyError):
        proxy = getattr(error.pool, "proxy", None) if isinstance(error, MaxRetryError) else None
        which = f"the proxy {proxy.host}:{proxy.port}" if proxy else "the proxy"
        return f"{which} failed: {_text(reason.original_error)}"
    if reason.args and isinstance(reason.args[0], ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {reason.args[0].verify_message}"
    return _text(reason)


def _text(error: BaseException) -> str:
    text = str(error)
    return text.partition(">: ")[2] or text.partition("): ")[2] or text
