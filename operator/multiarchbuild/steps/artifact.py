"""An OCI artifact as a source: one layer with a tar, as Flux and the CLI push it.

Source: https://fluxcd.io/flux/cheatsheets/oci-artifacts/ (config application/vnd.cncf.flux.config.v1+json, layer
application/vnd.cncf.flux.content.v1.tar+gzip). Other artifacts of one layer are unpacked likewise: ORAS makes some.
How a layer is compressed is told by its content, whatever its media type says: +gzip, +zstd or nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import DeniedError, NotFoundError, RegistryError, RejectedError, UnreachableError

from .credentials import registry_keychain
from .download import save
from .errors import FOR_REGISTRY, StepError, certificate_error
from .mounts import Mounts
from .registries import client

_CONTENT = re.compile(r"application/vnd\.cncf\.flux\.content\.v1\.tar(\+\w+)?")
_HINT = "Correct source.oci.image, or name a Secret in output.secretRefs whose credentials may pull it"


def digest_of_tag(mounts: Mounts, image: str) -> str:
    """Return the digest of the artifact that `image`, a name with a tag, means now.

    Raises:
        StepError: there is none, or the registry does not say.
    """
    registry = client(mounts, registry_keychain(mounts), image)
    tag = image.rpartition(":")[2]
    try:
        return registry.resolve(tag).digest
    except RegistryError as error:
        raise _failure(error, image) from error


def pull(mounts: Mounts, image: str, digest: str, file: Path) -> None:
    """Write the content of the artifact with `digest` in the repository of `image` to `file`.

    Raises:
        StepError: it cannot be pulled, or has no content that can be built.
    """
    registry = client(mounts, registry_keychain(mounts), image)
    try:
        layer = _content(registry, digest)
        save(registry.blob(layer["digest"]), layer["digest"], file, f"the content of {image}")
    except RegistryError as error:
        raise _failure(error, image) from error


def _content(registry: Client, digest: str) -> Mapping[str, Any]:
    manifest = registry.get(digest)
    try:
        if "manifests" in manifest.content:
            raise StepError(
                Reason.SOURCE_INVALID,
                f"{registry.repository}@{digest} is an index, such as an image for several platforms, and not an "
                "artifact: push one with `flux push artifact` or `kubectl mab build`.",
            )
        layers = manifest.content["layers"]
        known = [layer for layer in layers if _CONTENT.fullmatch(layer["mediaType"])]
        chosen = known or layers
        (layer,) = [{"digest": str(layer["digest"])} for layer in chosen]
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(
            Reason.SOURCE_INVALID,
            f"{registry.repository}@{digest} is not an artifact of one layer: push one with `flux push artifact` or "
            "`kubectl mab build`.",
        ) from error
    return layer


def _failure(error: RegistryError, image: str) -> StepError:
    match error:
        case DeniedError():
            return StepError(Reason.SOURCE_DENIED, f"{image} may not be pulled: {error}. {_HINT}.")
        case NotFoundError():
            return StepError(Reason.SOURCE_NOT_FOUND, f"{image} does not exist: {error}. {_HINT}.")
        case UnreachableError():
            return certificate_error(str(error), FOR_REGISTRY) or StepError(
                Reason.REGISTRY_UNREACHABLE,
                f"{error}. Check the host in source.oci.image, and that pods may connect to it.",
            )
        case RejectedError():
            return StepError(Reason.REGISTRY_REFUSED, f"Pulling {image} was refused: {error}. {_HINT}.")
        case _:
            return StepError(Reason.REGISTRY_ERROR, f"Pulling {image} failed: {error}.")
