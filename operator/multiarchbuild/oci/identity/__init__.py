"""Logins to registries in exchange for a token of a ServiceAccount, by the documented requests of each provider.

Their own libraries take longer to load than the exchange takes, and each is some requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiarchbuild.api.identity import Identities, Identity, Provider
from multiarchbuild.oci.credentials import Credentials

if TYPE_CHECKING:
    import urllib3


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A login, and how long it is good for."""

    credentials: Credentials
    seconds: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is exchanged, and by which way."""

    identity: Identity
    identities: Identities
    host: str
    """The registry that is logged in to."""
    token: Callable[[], str]
    """Reads the token of the ServiceAccount, which the kubelet replaces now and then."""
    http: "urllib3.PoolManager"
    """Connections to the provider."""
    near: "urllib3.PoolManager"
    """Connections to the metadata server of the node, through no proxy."""
    registry: "urllib3.PoolManager"
    """Connections that trust what the registry is to be trusted by."""
    session: str
    """What the provider's log is to show."""
    plain_http: bool = False
    """Whether the registry is spoken to without TLS."""

    def login(self) -> Exchanged:
        """Return a new login.

        Raises:
            DeniedError: the provider does not let this ServiceAccount be this identity, or use its registry.
            RegistryError, urllib3.exceptions.HTTPError: it does not answer, or with an error of its own.
        """
        match self.identity.provider:
            case Provider.AWS:
                from . import aws  # noqa: PLC0415 - a step loads the provider that it needs

                return aws.login(self)
            case Provider.GOOGLE:
                from . import google  # noqa: PLC0415

                return google.login(self)
            case Provider.AZURE:
                from . import azure  # noqa: PLC0415

                return azure.login(self)
