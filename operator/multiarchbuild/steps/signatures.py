"""What the publish step signs: the index and each image in it, as every verifier looks for it, and how they came about.

CRI-O and Podman evaluate their policy on the manifest of the platform that they pull, others on the index.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multiarchbuild import __version__
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.provenance import Provenance
from multiarchbuild.api.results import Pushed
from multiarchbuild.api.results import Source as PinnedSource
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci import bundle, signed, signing, slsa
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.index import Descriptor, Image, Manifest
from multiarchbuild.oci.provenance import needed
from multiarchbuild.oci.signature import Signer

from .log import say

_PARALLEL = 8


def sign(
    registry: Client, index: Manifest, images: Sequence[Image], signer: Signer, inputs: Inputs, pushed: Pushed
) -> str:
    """Sign `index` and `images` by `signer`; return the digest of the manifest with the signatures of the index.

    What this signer has signed before stays as it is, so that a publish that is repeated adds nothing.

    Raises:
        RegistryError: the registry refuses it.
    """
    whole = {"mediaType": index.media_type, "digest": index.digest, "size": len(index.raw)}
    others = [image for image in images if image.descriptor["digest"] != index.digest]
    subjects: list[Descriptor] = [whole, *(image.descriptor for image in others)]
    statement = _provenance(registry, index, images, inputs, pushed)
    with ThreadPoolExecutor(_PARALLEL) as threads:
        first, *_ = threads.map(lambda each: _sign(registry, each, signer, statement), subjects)
    say(f"signed {index.digest} and {len(others)} image(s) in it: {first} as {signing.tag(index.digest)}")
    return first


def _sign(registry: Client, subject: Descriptor, signer: Signer, provenance: bytes | None) -> str:
    signature, before = signed.sign(registry, subject, signer)
    if provenance is not None and not any(slsa.says_the_same(provenance, each) for each in before):
        signed.attach(registry, subject, provenance, slsa.PREDICATE, signer)
    return signature


def _provenance(
    registry: Client, index: Manifest, images: Sequence[Image], inputs: Inputs, pushed: Pushed
) -> bytes | None:
    """Return the statement about the index and the images in it, or None where no provenance is wanted."""
    spec = inputs.spec
    if spec.attestations.provenance is Provenance.DISABLED:
        return None
    subjects = [(spec.output.image, index.digest)]
    subjects += [(spec.output.image, str(image.descriptor["digest"])) for image in images]
    origin = slsa.Origin(
        external=_external(spec),
        platforms=[
            image.model_dump(by_alias=True, include={"platform", "mode", "node_architecture"}, exclude_none=True)
            for image in pushed.images
        ],
        dependencies=[
            *_source(spec, pushed.source),
            *(material for image in images for material in _materials(registry, image)),
        ],
        builder=inputs.builder_id,
        version=__version__,
        invocation=f"{inputs.namespace}/{inputs.name}/{inputs.run}",
    )
    return bundle.statement(subjects, slsa.PREDICATE, slsa.predicate(origin))


def _external(spec: Spec) -> Mapping[str, Any]:
    """Return what was asked for; values of build arguments only where `provenance: Max` shows them anyway."""
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    build = dict(dumped.get("build", {}))
    if spec.attestations.provenance is not Provenance.MAX:
        build.pop("args", None)
    output = {field: dumped["output"][field] for field in ("image", "tags") if field in dumped["output"]}
    # Whose identity logs in where is nobody's business who pulls the image.
    build.pop("identity", None)
    source = {kind: _without(found, "identity") for kind, found in dumped["source"].items()}
    return {"platforms": dumped["platforms"], "source": source, "build": build, "output": output}


def _without(found: Any, field: str) -> Any:
    return {name: value for name, value in found.items() if name != field} if isinstance(found, dict) else found


def _source(spec: Spec, pinned: PinnedSource | None) -> list[slsa.Dependency]:
    if pinned is None:
        return []
    if spec.source.git and pinned.commit:
        return [{"uri": f"git+{spec.source.git.url}", "digest": {"gitCommit": pinned.commit}}]
    algorithm, _, value = (pinned.digest or "").partition(":")
    uri = pinned.url or (spec.source.http.url if spec.source.http else "")
    uri = uri or (f"oci://{spec.source.oci.image.partition('@')[0]}" if spec.source.oci else "")
    return [{"uri": uri, "digest": {algorithm: value}}] if uri and value else []


def _materials(registry: Client, image: Image) -> list[slsa.Dependency]:
    found: list[slsa.Dependency] = []
    for attestation in image.attestations:
        manifest = registry.get(str(attestation["digest"]))
        for digest in needed(manifest):
            found += slsa.materials(registry.small_blob(digest))
    return found
