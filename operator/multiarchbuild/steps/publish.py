"""The publish step: one index over what the builders pushed, verified and signed before any tag moves to it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, PublishedPlatform, Pushed
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci import signing
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError, RegistryError
from multiarchbuild.oci.index import Image, assemble, find_image, stored_size
from multiarchbuild.oci.provenance import Rewritten

from .attestations import attested, push
from .credentials import registry_keychain, signing_key
from .errors import StepError, push_error
from .handover import handed_over
from .log import say
from .mounts import Mounts
from .registries import client

_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What one builder pushed, as the index is to list it."""

    image: Image
    size: int
    """Compressed bytes of config and layers."""
    new: tuple[Rewritten, ...]
    """Attestation manifests that the registry does not have yet."""


def publish(mounts: Mounts, tags: Sequence[str]) -> Published:
    """Push the index over what was built, waiting for that where it is not known yet, sign it, then move `tags` to it.

    Doing it again with the same arguments makes the same index and changes nothing.

    Raises:
        StepError: something that was built is gone, the key is no good, or the registry refuses.
    """
    key = signing_key(mounts)
    spec = mounts.inputs.spec
    output = spec.output
    registry = client(mounts, registry_keychain(mounts), output.image)
    built = Pushed.model_validate_json(handed_over(mounts, paths.BUILT_FILE, "what the platforms' builders push"))
    wanted = [(Platform.parse(image.platform), image.digest) for image in built.images]
    try:
        with ThreadPoolExecutor(_PARALLEL) as threads:
            fetched = list(threads.map(lambda entry: _fetch(registry, *entry, spec=spec), wanted))
            # Not before all is read: the token for reading would take the place of the one for pushing.
            list(threads.map(lambda new: push(registry, new), [new for each in fetched for new in each.new]))
        index = assemble([each.image for each in fetched], output.annotations)
        say(f"pushing index {index.digest} to {output.image}")
        registry.put(index, index.digest)
        if not registry.exists(index.digest):
            raise StepError(
                Reason.REGISTRY_ERROR,
                f"{registry.repository.registry} took {index.digest} and does not serve it; no tag was moved.",
            )
        say(f"verified {index.digest}: {', '.join(str(each.image.platform) for each in fetched)}")
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
            PublishedPlatform(platform=str(each.image.platform), digest=each.image.descriptor["digest"], size=each.size)
            for each in fetched
        ),
        signature=signature,
    )


def _fetch(registry: Client, platform: Platform, digest: str, *, spec: Spec) -> _Fetched:
    """Return the image in what the builder of `platform` pushed, once all of it was seen to exist."""
    try:
        image = find_image(registry.get(digest), platform)
        size = stored_size(registry.get(image.descriptor["digest"]).content)
        image, new = attested(registry, image, spec)
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
    return _Fetched(image, size, new)
