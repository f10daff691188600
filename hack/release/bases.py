"""The images that the Dockerfile begins with, pinned by the digests that their registries have now."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.names import Repository

from .errors import ReleaseError

BASES: Final[Mapping[str, str]] = {
    "PYTHON_DIGEST": "python:{PYTHON}-slim",
    "BUILDKIT_DIGEST": "moby/buildkit:{BUILDKIT}-rootless",
}
"""Image by the build argument that pins it; in braces the arguments with its version."""
_DEFAULT = re.compile(r"^ARG ([A-Z_]+)=(\S*)$", re.MULTILINE)


def images(dockerfile: str) -> dict[str, str]:
    """Return the image, `name:tag`, by the argument that pins it, as the text of the Dockerfile names them."""
    defaults = dict(_DEFAULT.findall(dockerfile))
    return {argument: image.format_map(defaults) for argument, image in BASES.items()}


def pinned(found: Mapping[str, str], digest: Callable[[str], str]) -> dict[str, str]:
    """Return the build arguments that pin the images in `found`, as `digest` resolves them."""
    return {argument: f"@{digest(image)}" for argument, image in found.items()}


def resolver(registries: Sequence[Mapping[str, Any]]) -> Callable[[str], str]:
    """Return what finds the digest of an image where the builders look for it.

    Args:
        registries: as in the operator's policy: with mirrors, and without TLS where they say so.
    """
    known = {str(entry["host"]): entry for entry in registries}

    def digest(image: str) -> str:
        name, _, tag = image.rpartition(":")
        repository = Repository.parse(name)
        failures = []
        for host in (*known.get(repository.registry, {}).get("mirrors", ()), repository.registry):
            at = Repository.parse(f"{host}/{repository.path}")
            plain = bool(known.get(str(host), {}).get("plainHttp"))
            try:
                return Client(at, pool(None), plain_http=plain).resolve(tag).digest
            except RegistryError as error:
                failures.append(str(error))
        raise ReleaseError(f"base image {image} has no digest to pin: {'; '.join(failures)}")

    return digest
