"""Which proxy a request goes through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go and curl read them.

Source: https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config. Python's `urllib.request.proxy_bypass` knows neither
networks nor ports, so that BuildKit and the steps beside it would go different ways.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies by the scheme of what is asked for, and what is asked without."""

    by_scheme: Mapping[str, str] = field(default_factory=dict)
    exceptions: Sequence[str] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return what the standard variables say; in lower case they go first, as with curl."""

        def value(name: str) -> str:
            return environment.get(name) or environment.get(name.upper()) or ""

        found = {scheme: url for scheme in ("http", "https") if (url := value(f"{scheme}_proxy").strip())}
        # As everywhere, a proxy without a scheme is one that speaks HTTP.
        proxies = {scheme: url if "://" in url else f"http://{url}" for scheme, url in found.items()}
        entries = (entry.strip().lower() for entry in value("no_proxy").split(","))
        return cls(proxies, tuple(filter(None, entries)))

    def of(self, url: str) -> str | None:
        """Return the proxy that `url` is asked through, or None where it is asked directly."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            return None
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None or _is_loopback(host) or any(_names(entry, host, port) for entry in self.exceptions):
            return None
        return proxy


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _names(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY is about this host."""
    if entry == "*":
        return True
    own = _address(host)
    try:
        if own is not None:
            return own in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        return int(wanted) == port and _names(name, host, port)
    domain = entry.removeprefix("*")
    if own is not None:
        return _address(entry) == own
    # `.example.com` is about what is below it, `example.com` about itself too.
    return host == domain or host.endswith(domain if domain.startswith(".") else f".{domain}")
