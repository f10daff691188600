"""Which identities of clouds a build uses, and for which registries."""

from collections.abc import Iterator
from dataclasses import dataclass

from multiarchbuild.api.identity import Identity
from multiarchbuild.api.spec import Spec


@dataclass(frozen=True, slots=True)
class Login:
    """One identity, and what it logs in to."""

    field: str
    """Part of the spec that names it."""
    identity: Identity
    hosts: tuple[str, ...]
    """Registries."""
    path: str = ""
    """The only repository of the first of these registries; empty for all."""
    destination: int | None = None
    """The one of output.destinations that it is for, and nothing else."""


def logins(spec: Spec) -> Iterator[Login]:
    """Yield each identity in `spec`; one that is for a single repository of a registry has its path."""
    output, cache, oci = spec.output, spec.cache, spec.source.oci
    if output.identity:
        yield _login("output.identity", output.identity, output.image)
    for number, each in enumerate(output.destinations):
        if each.identity:
            yield _login(f"output.destinations[{number}].identity", each.identity, each.image, destination=number)
    if cache.identity and cache.repository:
        yield _login("cache.identity", cache.identity, cache.repository, alone=True)
    if oci and oci.identity:
        name = oci.image.partition("@")[0]
        folder, slash, last = name.rpartition("/")
        yield _login("source.oci.identity", oci.identity, f"{folder}{slash}{last.partition(':')[0]}", alone=True)
    if spec.build.identity:
        yield Login("build.identity", spec.build.identity, spec.build.identity.registries)


def _login(
    field: str, identity: Identity, repository: str, *, alone: bool = False, destination: int | None = None
) -> Login:
    host, _, path = repository.partition("/")
    return Login(field, identity, (host, *identity.registries), path if alone else "", destination)
