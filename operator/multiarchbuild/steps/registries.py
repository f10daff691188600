"""Clients for the registries of a run."""

from typing import TYPE_CHECKING

from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.credentials import Credentials, Keychain
from multiarchbuild.oci.names import Repository, canonical_host

from .credentials import registry_credentials, registry_keychain
from .mounts import Mounts
from .trust import registry_ca_file

if TYPE_CHECKING:
    import urllib3


def client(
    mounts: Mounts,
    keychain: Keychain,
    name: str,
    *,
    connect: float = 5,
    read: float = 30,
    destination: int | None = None,
    patient: bool = True,
) -> Client:
    """Return a client for the repository `name`; `connect` and `read` are time limits in seconds.

    `keychain` is that of `destination`; without `patient` a request that fails is not repeated.
    """
    repository = Repository.parse(name)

    def login() -> Credentials | None:
        return registry_credentials(mounts, keychain, repository, destination)

    plain = {canonical_host(registry.host) for registry in mounts.inputs.registries if registry.plain_http}
    return Client(
        repository,
        connections_for(mounts, repository.registry, connect=connect, read=read, patient=patient),
        credentials=login(),
        plain_http=repository.registry in plain,
        renew=login if repository.registry in keychain.hosts_by_exchange() else None,
    )


def connections_for(
    mounts: Mounts, host: str, *, connect: float = 5, read: float = 30, patient: bool = True
) -> "urllib3.PoolManager":
    """Return connections that trust what the registry at `host`, and its token server, are to be trusted by."""
    return pool(registry_ca_file(mounts, host), connect=connect, read=read, patient=patient)


def destinations(mounts: Mounts) -> list[Client]:
    """Return clients for output.destinations, each with its own Secrets.

    Raises:
        StepError: a Secret cannot be used.
    """
    return [
        client(mounts, registry_keychain(mounts, number), each.image, destination=number)
        for number, each in enumerate(mounts.inputs.spec.output.destinations)
    ]


def field_of(mounts: Mounts, target: Client) -> str:
    """Return the part of the spec that names what `target` is a client for."""
    others = [Repository.parse(each.image) for each in mounts.inputs.spec.output.destinations]
    return f"output.destinations[{others.index(target.repository)}]" if target.repository in others else "output"
