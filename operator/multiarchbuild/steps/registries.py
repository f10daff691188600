"""Clients for the registries of a run."""

from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.names import Repository, canonical_host

from .mounts import Mounts
from .trust import registry_ca_file


def client(mounts: Mounts, keychain: Keychain, name: str, *, connect: float = 5, read: float = 30) -> Client:
    """Return a client for the repository `name`; `connect` and `read` are time limits in seconds."""
    repository = Repository.parse(name)
    plain = {canonical_host(registry.host) for registry in mounts.inputs.registries if registry.plain_http}
    return Client(
        repository,
        pool(registry_ca_file(mounts, repository.registry), connect=connect, read=read),
        credentials=keychain.find(repository),
        plain_http=repository.registry in plain,
    )
