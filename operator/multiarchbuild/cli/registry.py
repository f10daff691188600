"""Registries as the user of the command line reaches them."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

from multiarchbuild.oci import errors as oci
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.names import Repository

from .docker import Logins
from .errors import NotFoundError, RefusedError, UnreachableError


def client(name: str, config: Logins, *, plain_http: bool) -> Client:
    """Return a client for the repository `name` with the user's credentials.

    As with docker, a registry on this machine may speak plain HTTP without being asked to.
    """
    repository = Repository.parse(name)
    plain = plain_http or _is_local(repository.registry)
    return Client(repository, pool(None), config.find(repository), plain_http=plain)


@contextmanager
def explained(config: Logins) -> Iterator[None]:
    """Raise what a registry answers as an error of the command line, with what to do about it."""
    try:
        yield
    except oci.DeniedError as error:
        advice = f"log in with `docker login`, `podman login`, or any program that writes {config.path}"
        raise RefusedError(f"{error}: {advice}") from error
    except oci.NotFoundError as error:
        raise NotFoundError(str(error)) from error
    except oci.UnreachableError as error:
        advice = " (a registry without TLS needs --plain-http)" if "SSL" in str(error) else ""
        raise UnreachableError(f"{error}{advice}") from error
    except oci.RegistryError as error:
        raise RefusedError(str(error)) from error


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
