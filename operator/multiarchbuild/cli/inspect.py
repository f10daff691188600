"""What a registry has: the index, the image of each platform, what attests to them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from pydantic import ValidationError
from rich.text import Text

from multiarchbuild.api.foreign import parse_object
from multiarchbuild.api.record import MEDIA_TYPE, BuildRecord
from multiarchbuild.oci import referrers, signing
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.index import DOCKER_LIST, INDEX, Manifest, size_of, stored_size

from . import records, registry
from .console import size, table
from .docker import Logins
from .errors import BuildFailedError, RefusedError
from .kube import Cluster
from .resource import Build

_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_PREDICATE = "in-toto.io/predicate-type"


@dataclass(frozen=True, slots=True)
class Attestation:
    """A manifest of attestations."""

    digest: str
    predicates: tuple[tuple[str, int], ...]
    """Types of what is attested, such as https://slsa.dev/provenance/v1, with the bytes of each."""

    @property
    def size(self) -> int:
        """Bytes of all that is attested."""
        return sum(size for _, size in self.predicates)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image."""

    digest: str
    size: int
    """Compressed bytes."""
    made_by: str
    """The instruction that made it, as the configuration of the image says."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the index."""

    platform: str
    digest: str
    layers: int
    size: int
    """Compressed bytes of config and layers."""
    attestations: tuple[Attestation, ...]
    parts: tuple[Layer, ...] = ()
    """Its layers, where they were asked for."""


@dataclass(frozen=True, slots=True)
class Report:
    """An image in a registry."""

    ref: str
    media_type: str
    annotations: Mapping[str, str]
    images: tuple[Image, ...]
    tags: tuple[tuple[str, bool], ...] = ()
    """Tags that a build has moved, and whether they still name this digest."""
    signatures: int = 0
    """Cosign signatures of the index, which nobody has verified here."""
    record: BuildRecord | None = None
    """What is attached about the run that made it."""

    @property
    def digest(self) -> str:
        """Digest of the index."""
        return self.ref.partition("@")[2]

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "ref": self.ref,
            "digest": self.digest,
            "mediaType": self.media_type,
            "annotations": dict(self.annotations),
            "tags": [{"tag": tag, "current": current} for tag, current in self.tags],
            "signatures": self.signatures,
            "record": self.record.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            if self.record
            else None,
            "images": [
                {
                    "platform": image.platform,
                    "digest": image.digest,
                    "layers": image.layers,
                    "size": image.size,
                    "attestations": [
                        {"digest": each.digest, "predicates": [kind for kind, _ in each.predicates], "size": each.size}
                        for each in image.attestations
                    ],
                }
                for image in self.images
            ],
        }


def report(name: str, connect: Callable[[], Cluster], *, plain_http: bool, layers: bool = False) -> Report:
    """Return what the registry has of a build's last image, or of an image that is named by tag or digest.

    With `layers` the configuration of each image is read too, which says what made them.

    Raises:
        CliError: there is none, or the registry or the API server says no.
    """
    config = Logins.load()
    if "/" in name:
        with registry.explained(config):
            return _read(registry.client(name, config, plain_http=plain_http), _reference(name), ())
    build = Build(connect().get(name))
    if not build.ref:
        raise BuildFailedError(f"{name} has published no image yet")
    client = registry.client(build.ref, config, plain_http=plain_http)
    with registry.explained(config):
        return _read(client, _reference(build.ref), build.status["image"].get("tags", ()), layers=layers)


def _reference(image: str) -> str:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return digest or tag or "latest"


def _read(client: Client, reference: str, tags: Sequence[str], *, layers: bool = False) -> Report:
    index = client.resolve(reference)
    moved = tuple((tag, _names(client, tag, index.digest)) for tag in tags)
    try:
        images = _images(client, index)
        if layers:
            images = tuple(_with_layers(client, each) for each in images)
        signed = signing.signatures(client, index.digest)
        signatures = len(signed.content["layers"]) if signed else 0
        annotations = {name: str(value) for name, value in _annotations(index.content).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(f"{client.repository}@{index.digest} is not an image: {error}") from error
    ref = f"{client.repository}@{index.digest}"
    return Report(ref, index.media_type, annotations, images, moved, signatures, _record(client, index.digest))


def _record(client: Client, digest: str) -> BuildRecord | None:
    """Return the newest record that can be read."""
    for entry in reversed(referrers.listed(client, digest, MEDIA_TYPE)):
        with suppress(ValidationError):
            return BuildRecord.model_validate_json(referrers.content(client, entry) or b"")
    return None


def _names(client: Client, tag: str, digest: str) -> bool:
    try:
        return client.resolve(tag).digest == digest
    except NotFoundError:
        return False


def _images(client: Client, index: Manifest) -> tuple[Image, ...]:
    if index.media_type not in {INDEX, DOCKER_LIST}:
        return (_image("-", index, ()),)
    entries: Sequence[Mapping[str, Any]] = index.content["manifests"]
    attesting = [entry for entry in entries if _REFERENCE_TYPE in _annotations(entry)]
    return tuple(
        _image(
            _platform(entry),
            client.get(entry["digest"]),
            tuple(
                _attestation(client.get(each["digest"]))
                for each in attesting
                if _annotations(each).get(_REFERENCE_DIGEST) == entry["digest"]
            ),
        )
        for entry in entries
        if entry not in attesting
    )


def _image(platform: str, manifest: Manifest, attestations: tuple[Attestation, ...]) -> Image:
    layers = manifest.content.get("layers", ())
    return Image(platform, manifest.digest, len(layers), stored_size(manifest.content), attestations)


def _with_layers(client: Client, image: Image) -> Image:
    manifest = client.get(image.digest).content
    made_by: list[str] = []
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        history = parse_object(client.small_blob(manifest["config"]["digest"]), "the configuration").get("history", ())
        made_by = [str(entry.get("created_by", "")) for entry in history if not entry.get("empty_layer")]
    parts = tuple(
        Layer(str(layer["digest"]), size_of(layer), made)
        for layer, made in zip_longest(manifest.get("layers", ()), made_by[: image.layers], fillvalue="")
        if isinstance(layer, dict)
    )
    return replace(image, parts=parts)


def _attestation(manifest: Manifest) -> Attestation:
    layers: Sequence[Mapping[str, Any]] = manifest.content.get("layers", ())
    return Attestation(
        manifest.digest, tuple((str(_annotations(layer).get(_PREDICATE, "?")), size_of(layer)) for layer in layers)
    )


def _annotations(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry.get("annotations") or {}


def _platform(entry: Mapping[str, Any]) -> str:
    fields = entry.get("platform") or {}
    parts = (fields.get("os", "unknown"), fields.get("architecture", "unknown"), fields.get("variant", ""))
    return "/".join(filter(None, parts))


def lines(found: Report) -> list[Text]:
    """Return it for people."""
    facts = [["Image:", found.ref], ["Type:", found.media_type]]
    facts += [["Tag:", tag if current else f"{tag} (moved away or deleted since)"] for tag, current in found.tags]
    if found.signatures:
        facts.append(["Signatures:", f"{found.signatures}, not verified: cosign verify"])
    facts += [["Annotation:", f"{name}={value}"] for name, value in found.annotations.items()]
    rows = [[image.platform, image.digest, str(image.layers), size(image.size)] for image in found.images]
    result = [*table(["", ""], facts)[1:], Text(), *table(["PLATFORM", "DIGEST", "LAYERS", "SIZE"], rows)]
    attested = [
        [image.platform, each.digest, predicate, size(bytes_)]
        for image in found.images
        for each in image.attestations
        for predicate, bytes_ in each.predicates
    ]
    if attested:
        result += [Text(), *table(["ATTESTATION OF", "DIGEST", "PREDICATE", "SIZE"], attested)]
    if found.record:
        result += [Text(), *records.lines(found.record)]
    return result
