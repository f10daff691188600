"""The publish step: one index over what the builders pushed, verified and signed before any tag moves to it.

On request it is no index but the manifest of the only image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.foreign import parse_object
from multiarchbuild.api.formats import Format
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, PublishedPlatform, Pushed
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError, RegistryError
from multiarchbuild.oci.index import INDEX, Image, Manifest, assemble, find_image, stored_size
from multiarchbuild.oci.provenance import Rewritten
from multiarchbuild.plan.tags import child_tag

from . import signatures
from .attestations import attested, push
from .build_record import Recorder
from .copies import copy
from .credentials import registry_keychain
from .errors import StepError, push_error
from .handover import handed_over
from .log import say
from .mounts import Mounts
from .registries import client, destinations, field_of
from .signers import signers

_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What one builder pushed, as the index is to list it."""

    image: Image
    size: int
    """Compressed bytes of config and layers."""
    new: tuple[Rewritten, ...]
    """Attestation manifests that the registry does not have yet."""


def publish(mounts: Mounts, tags: Sequence[str], begun: Callable[[Pushed], None] = lambda _: None) -> Published:
    """Push the index over what was built, waiting for that where it is not known yet, sign it, then move `tags` to it.

    Doing it again with the same arguments makes the same index and changes nothing. It replaces only what a tag named
    when it began: on a node that was cut off meanwhile it may be late, and a newer run has moved the tag. `begun` is
    called with what was built, as soon as that is known.

    Raises:
        StepError: something that was built is gone, nothing can sign, the registry refuses, or a tag was moved.
    """
    signer = signers(mounts)
    spec = mounts.inputs.spec
    output = spec.output
    registry = client(mounts, registry_keychain(mounts), output.image)
    copies = destinations(mounts)
    named = [_named(target, tags) for target in (registry, *copies)]
    built = Pushed.model_validate_json(handed_over(mounts, paths.BUILT_FILE, "what the platforms' builders push"))
    begun(built)
    replaceable = [early or _named(target, tags) for target, early in zip((registry, *copies), named, strict=True)]
    wanted = [(Platform.parse(image.platform), image.digest) for image in built.images]
    recorder = Recorder(mounts, built)
    try:
        with ThreadPoolExecutor(_PARALLEL) as threads:
            fetched = list(threads.map(lambda entry: _fetch(registry, *entry, spec=spec), wanted))
            # Not before all is read: the token for reading would take the place of the one for pushing.
            list(threads.map(lambda new: push(registry, new), [new for each in fetched for new in each.new]))
        index = _root(registry, [each.image for each in fetched], spec)
        recorder.begin(index, {str(each.image.platform): each.size for each in fetched})
        say(f"pushing {output.format.lower()} {index.digest} to {output.image}")
        registry.put(index, index.digest)
        if not registry.exists(index.digest):
            raise StepError(
                Reason.REGISTRY_ERROR,
                f"{registry.repository.registry} accepted {index.digest} but does not return it; no tag was moved.",
            )
        say(f"verified {index.digest}: {', '.join(str(each.image.platform) for each in fetched)}")
        images = [each.image for each in fetched]
        own = signer() if signer else None
        signature = signatures.sign(registry, index, images, own, mounts.inputs, built) if own else None
        with ThreadPoolExecutor(_PARALLEL) as threads:
            list(threads.map(lambda target: _copied(mounts, registry, target, index), copies))
        if signer:
            for target in copies:
                with _pushing(mounts, target):
                    # Anew: a large image takes longer to copy than a certificate is valid.
                    signatures.sign(target, index, images, signer(), mounts.inputs, built)
        children = list(_children(registry, images)) if output.child_tags and index.media_type == INDEX else []
        for tag in tags:
            for target, known in zip((registry, *copies), replaceable, strict=True):
                with _pushing(mounts, target):
                    _check_unmoved(target, tag, {known.get(tag), index.digest})
                    _tag(target, index, tag, children)
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
        signed_by=own.signed_by if own else None,
        record=recorder.attached(),
    )


def _named(registry: Client, tags: Sequence[str]) -> Mapping[str, str | None]:
    """Return the digest that each tag names by now, or nothing where the registry does not answer.

    A registry that is away while this step waits for the builders costs none of its tries.
    """
    try:
        return {tag: registry.named_by(tag) for tag in tags}
    except RegistryError as error:
        say(f"cannot read the tags yet: {error}")
        return {}


def _check_unmoved(registry: Client, tag: str, may_name: set[str | None]) -> None:
    """Raise StepError where a tag names something else by now, which may be newer than what is published here.

    A registry has no request that compares and writes at once: what happens between this and the next is not seen.
    """
    if (now := registry.named_by(tag)) not in {None, *may_name}:
        raise StepError(
            Reason.TAG_MOVED,
            f"{registry.repository}:{tag} was moved to {now} during this step, and stays there: another run or "
            "somebody else has published. If this run is still wanted, the step is tried again and replaces it.",
        )


@contextmanager
def _pushing(mounts: Mounts, target: Client) -> Iterator[None]:
    """Raise what a registry refuses as a failure that names the repository, and the field that does."""
    try:
        yield
    except RegistryError as error:
        raise push_error(error, str(target.repository), field_of(mounts, target)) from error


def _copied(mounts: Mounts, registry: Client, target: Client, index: Manifest) -> None:
    with _pushing(mounts, target):
        copy(registry, target, index, mounts.work)


def _tag(target: Client, index: Manifest, tag: str, children: Sequence[tuple[str, Manifest]]) -> None:
    # Children before their index: under no tag is there ever one that a cleanup could empty.
    for suffix, child in children:
        target.put(child, child_tag(tag, suffix))
    target.put(index, tag)
    say(f"tagged {target.repository}:{tag}")


def _root(registry: Client, images: Sequence[Image], spec: Spec) -> Manifest:
    """Return what the tags are to name: the index over `images`, or the manifest of the only one."""
    if spec.output.format is Format.MANIFEST:
        (image,) = images
        return registry.get(str(image.descriptor["digest"]))
    return assemble(images, spec.output.annotations)


def _children(registry: Client, images: Sequence[Image]) -> Iterator[tuple[str, Manifest]]:
    """Yield what an index lists, each with what its tag ends in."""
    for image in images:
        yield image.platform.slug, registry.get(str(image.descriptor["digest"]))
        for number, attestation in enumerate(image.attestations):
            suffix = f"{image.platform.slug}-attestation{f'-{number}' if number else ''}"
            yield suffix, registry.get(str(attestation["digest"]))


def _windows_config(registry: Client, pushed: Manifest, platform: Platform) -> Mapping[str, Any] | None:
    """Return the config of an image for Windows that was pushed without an index, which would name the version."""
    if platform.os != "windows" or "config" not in pushed.content:
        return None
    return _config(registry, pushed.content["config"]["digest"])


def _config(registry: Client, digest: str) -> Mapping[str, Any]:
    """Return the configuration of an image.

    Raises:
        NonsenseError: a frontend or a base image made something else of it.
    """
    return parse_object(registry.small_blob(digest), f"the image's configuration {digest}")


def _fetch(registry: Client, platform: Platform, digest: str, *, spec: Spec) -> _Fetched:
    """Return the image in what the builder of `platform` pushed, once all of it was seen to exist."""
    try:
        pushed = registry.get(digest)
        image = find_image(pushed, platform, _windows_config(registry, pushed, platform))
        manifest = registry.get(image.descriptor["digest"]).content
        size = stored_size(manifest)
        _check_platform(registry, platform, manifest["config"]["digest"])
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


def _check_platform(registry: Client, platform: Platform, config: str) -> None:
    """Raise StepError where an image's own configuration says another platform than the index is to."""
    said = _config(registry, config)
    os, architecture, variant = (said.get(name, "") for name in ("os", "architecture", "variant"))
    if (os, architecture) != (platform.os, platform.architecture) or (variant and variant > platform.variant != ""):
        own = "/".join(filter(None, (os, architecture, variant)))
        raise StepError(
            Reason.BASE_IMAGE_NOT_FOUND,
            f"What was built for {platform} says that it is for {own}: a base image or the frontend has made it so. "
            "Use base images for the platform, or drop it.",
        )
