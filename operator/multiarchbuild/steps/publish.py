"""The publish step: one index over what the builders pushed, verified and signed before any tag moves to it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, PublishedPlatform
from multiarchbuild.oci import signing
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError, RegistryError
from multiarchbuild.oci.index import Image, assemble, find_image, stored_size

from .credentials import registry_keychain, signing_key
from .errors import StepError, push_error
from .log import say
from .mounts import Mounts
from .registries import client

_PARALLEL = 8


def publish(mounts: Mounts, built: Sequence[str], tags: Sequence[str]) -> Published:
    """Push the index over `built` (each `platform=digest`, in the order of the index), sign it, then move `tags` to it.

    Doing it again with the same arguments makes the same index and changes nothing.

    Raises:
        StepError: something that was built is gone, the key is no good, or the registry refuses.
    """
    key = signing_key(mounts)
    output = mounts.inputs.spec.output
    wanted = [_parse(entry) for entry in built]
    registry = client(mounts, registry_keychain(mounts), output.image)
    try:
        with ThreadPoolExecutor(_PARALLEL) as threads:
            images, sizes = zip(*threads.map(lambda entry: _fetch(registry, *entry), wanted), strict=True)
        index = assemble(images, output.annotations)
        say(f"pushing index {index.digest} to {output.image}")
        registry.put(index, index.digest)
        if not registry.exists(index.digest):
            raise StepError(
                Reason.REGISTRY_ERROR,
                f"{registry.repository.registry} took {index.digest} and does not serve it; no tag was moved.",
            )
        say(f"verified {index.digest}: {', '.join(str(image.platform) for image in images)}")
        signature = signing.sign(registry, index.digest, key) if key else None
        if signature:
            say(f"signed {index.digest}: {signature} as {signing.tag(index.digest)}")
        for tag in tags:
            registry.put(index, tag)
            say(f"tagged {output.image}:{tag}")
    except RegistryError as error:
        raise push_error(error, output.image) from error
    return Published(
        digest=index.digest,
        tags=tuple(tags),
        platforms=tuple(
            PublishedPlatform(platform=str(image.platform), digest=image.descriptor["digest"], size=size)
            for image, size in zip(images, sizes, strict=True)
        ),
        signature=signature,
    )


def _parse(entry: str) -> tuple[Platform, str]:
    platform, _, digest = entry.partition("=")
    return Platform.parse(platform), digest


def _fetch(registry: Client, platform: Platform, digest: str) -> tuple[Image, int]:
    """Return the image in what the builder of `platform` pushed, and its size, once all of it was seen to exist."""
    try:
        image = find_image(registry.get(digest), platform)
        size = stored_size(registry.get(image.descriptor["digest"]).content)
        for attestation in image.attestations:
            registry.get(attestation["digest"])
    except NotFoundError as error:
        raise StepError(
            Reason.REGISTRY_ERROR,
            f"What was built for {platform} ({digest}) is no longer in {registry.repository}: {error}. "
            "If the registry deletes untagged manifests at once, let it keep them for a while.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            Reason.REGISTRY_ERROR, f"What was built for {platform} ({digest}) cannot be read: {error}."
        ) from error
    say(f"{platform}: image {image.descriptor['digest']}, {len(image.attestations)} attestation manifest(s)")
    return image, size
