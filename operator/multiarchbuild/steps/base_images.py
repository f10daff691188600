"""Whether the tags of base images mean what they meant: asked between two runs, with the build's own credentials."""

from collections.abc import Iterator, Sequence

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Resolved
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.errors import DeniedError, RegistryError, UnreachableError
from multiarchbuild.oci.names import Repository, canonical_host

from .credentials import registry_keychain
from .errors import FOR_REGISTRY, StepError, certificate_error
from .log import say
from .mounts import Mounts
from .registries import client


def moved(mounts: Mounts, bases: Sequence[str]) -> Resolved:
    """Return those of `bases` (`registry/repository:tag@digest`) whose tags mean another digest now, with that.

    Raises:
        StepError: a registry does not say, and none of the others has moved.
    """
    keychain, found, failures = registry_keychain(mounts), list[str](), list[StepError]()
    for base in bases:
        name, _, before = base.partition("@")
        try:
            now = digest_now(mounts, keychain, name)
        except RegistryError as error:
            failures.append(_failure(error, name))
            say(f"{name}: {error}")
            continue
        say(f"{name} is {now or 'gone'}{'' if now == before else f', and was {before}'}")
        if now and now != before:
            found.append(f"{name}@{now}")
    if failures and not found:
        raise failures[0]
    return Resolved(bases=tuple(found))


def digest_now(mounts: Mounts, keychain: Keychain, name: str, *, connect: float = 5, read: float = 30) -> str | None:
    """Return what a tag means now, by the first mirror that knows it or by its own registry; None where it is gone.

    `connect` and `read` are time limits in seconds for each of them.
    """
    tag = name.rpartition(":")[2]
    *mirrors, own = _places(mounts, name)
    for mirror in mirrors:
        try:
            if digest := client(mounts, keychain, mirror, connect=connect, read=read).named_by(tag):
                return digest
        except RegistryError as error:
            say(f"{mirror}: {error}")
    return client(mounts, keychain, own, connect=connect, read=read).named_by(tag)


def _places(mounts: Mounts, name: str) -> Iterator[str]:
    """Yield the repositories that have an image, in the order in which BuildKit asks them."""
    repository = Repository.parse(name)
    for registry in mounts.inputs.registries:
        if canonical_host(registry.host) == repository.registry:
            yield from (f"{mirror}/{repository.path}" for mirror in registry.mirrors)
    yield name


def _failure(error: RegistryError, name: str) -> StepError:
    match error:
        case DeniedError():
            remedy = "name a Secret in output.secretRefs whose credentials may pull it"
            return StepError(Reason.BASE_IMAGE_DENIED, f"{name} may not be looked at: {error}: {remedy}.")
        case UnreachableError():
            return certificate_error(str(error), FOR_REGISTRY) or StepError(Reason.REGISTRY_UNREACHABLE, f"{error}.")
        case _:
            return StepError(Reason.REGISTRY_ERROR, f"Asking for {name} failed: {error}.")
