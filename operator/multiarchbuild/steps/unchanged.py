"""Whether a build would make the image that is published already: what it was made from is what it is now.

Asked is what BuildKit's provenance names of the image: the digests of base images and frontends, with the credentials
of the build. It is a hit of the layer cache over all layers: what that never looks at (secrets, what a RUN downloads)
is not looked at here. What can't be asked (files that ADD downloads, git contexts, an image without provenance) may be
another by now, and is built.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.results import PushedImage, Source
from multiarchbuild.oci import slsa
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.index import find_image
from multiarchbuild.oci.provenance import needed

from .base_images import digest_now
from .credentials import registry_keychain
from .errors import StepError
from .log import say
from .mounts import Mounts
from .registries import client, destinations

_PARALLEL = 8
_PATIENCE = 4.0
"""Seconds for a registry to connect, and again to answer: a build takes longer, and tries longer."""
_IMAGE = re.compile(r"pkg:docker/(?P<name>[^?@]+)@(?P<tag>[^?]*)(?:\?(?P<qualifiers>.*))?")
"""A package URL of BuildKit: `pkg:docker/docker/dockerfile@1?digest=sha256:…&platform=linux%2Famd64`.

Source: https://github.com/moby/buildkit/blob/v0.32.2/util/purl/image.go
"""


class _Changed(Exception):  # noqa: N818 - no error
    """Something is another than it was, or can't be asked; the message says what."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What is published already is what would be built."""

    images: tuple[PushedImage, ...]
    """The image of each platform that was asked for."""


def compare(mounts: Mounts, last: LastImage, source: Source | None, platforms: tuple[str, ...]) -> Unchanged | str:
    """Return the images of `platforms` in `last` if a build of `source` would make them again, else why it would not.

    `source` is what is built now, None where the spec says it all.
    """
    try:
        _check_source(last, source)
        keychain = registry_keychain(mounts)
        registry = client(mounts, keychain, mounts.inputs.spec.output.image, connect=_PATIENCE, read=_PATIENCE)
        images = _published(registry, last, platforms)
        listed = tuple(str(each["digest"]) for each in registry.get(last.digest).content.get("manifests", ()))
        targets = [registry, *destinations(mounts)]
        with ThreadPoolExecutor(_PARALLEL) as threads:
            list(threads.map(lambda each: _check_target(each, last, listed), targets))
            list(threads.map(lambda each: _check(mounts, keychain, each), set(_materials(registry, last, platforms))))
    except _Changed as changed:
        say(f"not what was published last: {changed}")
        return str(changed)
    except (RegistryError, StepError, ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"cannot tell whether anything has changed: {error}")
        return f"cannot be checked: {error}"
    say(f"nothing has changed since {last.digest} was published")
    return Unchanged(images)


def _check_source(last: LastImage, source: Source | None) -> None:
    if source is None:
        return
    own, known = source, last.source
    for now, before in zip(
        (own.commit, own.revision, own.digest), (known.commit, known.revision, known.digest), strict=True
    ):
        if now != before:
            raise _Changed(f"the source is {now}, and was {before}")


def _published(registry: Client, last: LastImage, platforms: tuple[str, ...]) -> tuple[PushedImage, ...]:
    root = registry.get(last.digest)
    found = [(name, str(find_image(root, Platform.parse(name)).descriptor["digest"])) for name in platforms]
    return tuple(PushedImage(platform=name, digest=digest) for name, digest in found if registry.get(digest))


def _check_target(target: Client, last: LastImage, listed: tuple[str, ...]) -> None:
    """Raise `_Changed` unless a repository has the whole image, as `listed` in its index, under its tags.

    A cleanup may have deleted what an index lists: it has no tag.
    """
    for digest in (last.digest, *listed):
        if not target.exists(digest):
            raise _Changed(f"{target.repository} does not have {digest} any more")
    for tag in last.tags:
        if (now := target.named_by(tag)) != last.digest:
            raise _Changed(f"{target.repository}:{tag} is {now or 'gone'}, and was {last.digest}")


@dataclass(frozen=True, slots=True)
class _Material:
    uri: str
    digest: str
    """`sha256:` and 64 hexadecimal digits; empty where it has none."""


def _materials(registry: Client, last: LastImage, platforms: tuple[str, ...]) -> Iterator[_Material]:
    """Yield what the images of `platforms` were made from."""
    root = registry.get(last.digest)
    for name in platforms:
        image = find_image(root, Platform.parse(name))
        told = False
        for attestation in image.attestations:
            manifest = registry.get(str(attestation["digest"]))
            for blob in needed(manifest):
                statement = registry.small_blob(blob)
                if not slsa.is_provenance(statement):
                    continue
                told = True
                for each in slsa.materials(statement):
                    own = each["digest"].get("sha256", "")
                    yield _Material(str(each["uri"]), f"sha256:{own}" if own else "")
        if not told:
            raise _Changed(f"no provenance says what the image for {name} was made from")


def _check(mounts: Mounts, keychain: Keychain, material: _Material) -> None:
    match = _IMAGE.fullmatch(material.uri)
    if match is None or not material.digest:
        raise _Changed(f"{material.uri} cannot be checked for changes")
    if "digest" in parse_qs(match["qualifiers"] or ""):
        return  # named by its digest: it is always the same
    name = f"{unquote(match['name'])}:{unquote(match['tag'])}"
    now = digest_now(mounts, keychain, name, connect=_PATIENCE, read=_PATIENCE)
    if now != material.digest:
        raise _Changed(f"{name} is {now or 'gone'}, and was {material.digest}")
