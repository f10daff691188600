"""Identities of clouds in a step: each is exchanged for a login when that is needed, and again before it expires."""

import threading
import time
from collections.abc import Callable
from functools import cache

import urllib3
from urllib3.exceptions import HTTPError

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.identity import token_file
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.client import pool
from multiarchbuild.oci.credentials import Credentials, Entry
from multiarchbuild.oci.errors import DeniedError, RegistryError
from multiarchbuild.oci.http import cause, connections
from multiarchbuild.oci.identity import Exchange
from multiarchbuild.oci.names import canonical_host
from multiarchbuild.plan.logins import Login, logins

from .errors import StepError
from .log import say
from .mounts import Mounts
from .trust import identity_ca_file, registry_ca_file

PATIENCE = urllib3.Timeout(connect=5, read=20)
RETRIES = urllib3.Retry(
    total=4,
    redirect=0,
    allowed_methods=None,  # an exchange can be repeated
    status_forcelist=(429, 500, 502, 503, 504),
    backoff_factor=0.5,
    retry_after_max=20,
    raise_on_status=False,
)
_EARLY = 0.2
"""Part of its life that a login still has when it is renewed."""
_AGAIN = 30.0
"""Seconds until a renewal that failed is tried again, while the login is still good."""


def exchanges(mounts: Mounts, destination: int | None) -> list[Entry]:
    """Return the logins by identities for one of output.destinations, or for all but those.

    Raises:
        StepError: one is for a registry that does not belong to its provider.
    """
    return [
        Entry(canonical_host(host), login.path if position == 0 else "", None, exchange=_login(mounts, login, host))
        for login in logins(mounts.inputs.spec)
        if login.destination == destination
        for position, host in enumerate(login.hosts)
    ]


class Renewed:
    """A login that is exchanged anew before it expires."""

    def __init__(self, exchange: Exchange, field: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchange, self._field, self._clock = exchange, field, clock
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._renew_at = self._expires_at = 0.0

    def __call__(self) -> Credentials:
        """Return the login as it is by now.

        Raises:
            StepError: there is none, and the provider gives none.
        """
        with self._lock:
            now = self._clock()
            if self._credentials is None or now >= self._renew_at:
                self._renew(now)
            assert self._credentials is not None
            return self._credentials

    def _renew(self, now: float) -> None:
        identity, host = self._exchange.identity, self._exchange.host
        try:
            found = self._exchange.login()
        except (RegistryError, HTTPError) as error:
            failure = _failure(error, self._field, identity.name)
            if self._credentials is None or now >= self._expires_at:
                raise failure from error
            say(f"the login to {host} is valid for {self._expires_at - now:.0f} more seconds: {failure.message}")
            self._renew_at = now + _AGAIN
            return
        say(f"logged in to {host} as {identity.name} for {found.seconds} s ({self._field})")
        self._credentials = found.credentials
        self._renew_at, self._expires_at = now + (1 - _EARLY) * found.seconds, now + found.seconds


@cache
def _login(mounts: Mounts, login: Login, host: str) -> Renewed:
    ours, identities, provider = mounts.inputs, mounts.services.identities, login.identity.provider
    # The operator has asked for this too, of the build: these inputs may be of somebody else.
    if not identities.serves(provider, host):
        raise StepError(
            Reason.POLICY_DENIED,
            f"{login.field} would log in to {host}, which is not a registry of {provider} by the operator's policy "
            f"(identities.{str(provider).lower()}.registries). Start another run; if it says the same, look for who "
            "replaces ConfigMaps in this namespace.",
        )
    host = canonical_host(host)
    plain = {canonical_host(registry.host) for registry in ours.registries if registry.plain_http}
    audience = identities.audience(login.identity)
    exchange = Exchange(
        identity=login.identity,
        identities=identities,
        host=host,
        token=lambda: _token(mounts, audience or "", login.field),
        http=connections(identity_ca_file(mounts), retries=RETRIES, timeout=PATIENCE),
        near=urllib3.PoolManager(retries=RETRIES, timeout=PATIENCE),
        registry=pool(registry_ca_file(mounts, host)),
        session=f"multiarchbuild-{ours.namespace}-{ours.name}",
        plain_http=host in plain,
    )
    return Renewed(exchange, login.field)


def _token(mounts: Mounts, audience: str, field: str) -> str:
    try:
        return (mounts.at(paths.IDENTITY) / token_file(audience)).read_text().strip()
    except OSError as error:
        raise StepError(
            Reason.IDENTITY_DENIED,
            f"The pod has no token of its ServiceAccount for {audience}, which {field} needs ({error.strerror}): look "
            "for an admission webhook that removes volumes from pods.",
        ) from error


def _failure(error: RegistryError | HTTPError, field: str, name: str) -> StepError:
    if isinstance(error, DeniedError):
        return StepError(
            Reason.IDENTITY_DENIED,
            f"{field} ({name}) was refused: {error}. Let that identity trust the ServiceAccount of "
            "scheduling.serviceAccountName and this cluster's issuer, and give it rights on the registry.",
        )
    if isinstance(error, RegistryError):
        return StepError(Reason.IDENTITY_UNAVAILABLE, f"{field} ({name}) cannot be used now: {error}.")
    where = getattr(getattr(error, "pool", None), "host", "") or "the provider"
    return StepError(
        Reason.IDENTITY_UNAVAILABLE,
        f"{field} ({name}) cannot be used: {where} cannot be reached: {cause(error)}. Check that pods may connect to "
        "it.",
    )
