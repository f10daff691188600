"""The proxy by which steps and BuildKit leave the cluster."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from multiarchbuild.api.base import Model

INTERNAL = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")
"""What no proxy outside reaches: the pod itself, and the cluster's Services by the names that DNS has for them."""
_URL = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")
_EXCEPTION = re.compile(r"\*|[*.]?[A-Za-z0-9.:_/\[\]-]+")


class ProxyPolicy(Model):
    """How pods of builds reach what is outside: registries, git servers, archives, and what a RUN downloads."""

    http: Annotated[str, Field(max_length=512)] = ""
    """Proxy for http:// URLs, such as http://proxy.example.com:3128."""
    https: Annotated[str, Field(max_length=512)] = ""
    """Proxy for https:// URLs."""
    no_proxy: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Hosts, domains (.example.com) and networks (10.0.0.0/8) that are reached without it, besides localhost, .svc and
    .cluster.local."""

    @field_validator("http", "https")
    @classmethod
    def _is_a_proxy(cls, url: str) -> str:
        if "@" in url:
            raise ValueError(
                "must not hold a user or password: every pod of a build, and each RUN, would show it. Let the proxy "
                "allow the networks of the pods, or name a proxy in the cluster that logs in to the other one"
            )
        if url and not _URL.fullmatch(url):
            raise ValueError("must be the URL of an HTTP proxy, such as http://proxy.example.com:3128")
        return url.rstrip("/")

    @field_validator("no_proxy")
    @classmethod
    def _are_hosts(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            if not _EXCEPTION.fullmatch(entry):
                raise ValueError(
                    f"{entry!r} is not a host, domain or network: write one entry for each, without spaces"
                )
        return entries

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say all this, in upper case; none without a proxy."""
        proxies = {"HTTP_PROXY": self.http, "HTTPS_PROXY": self.https}
        found = {name: url for name, url in proxies.items() if url}
        return {**found, "NO_PROXY": ",".join(dict.fromkeys((*INTERNAL, *self.no_proxy)))} if found else {}

    @property
    def environment(self) -> dict[str, str]:
        """The same in both spellings: curl, and with it git, reads `http_proxy` in lower case only."""
        return {name: value for key, value in self.variables.items() for name in (key, key.lower())}
