"""The attestation manifests of an image, as the index is to list them."""

from dataclasses import replace

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.index import Image
from multiarchbuild.oci.provenance import Rewritten, needed, others, rewrite

from .errors import StepError


def attested(registry: Client, image: Image, spec: Spec) -> tuple[Image, tuple[Rewritten, ...]]:
    """Return `image` once its attestation manifests were seen to exist, and those that have to be pushed for it.

    If `spec.reproducible`, their provenance is what the next build of the same has too.

    Raises:
        StepError: there is no SBOM, and `spec` asks for one.
    """
    manifests = [registry.get(attestation["digest"]) for attestation in image.attestations]
    if spec.attestations.sbom and not any(map(others, manifests)):
        raise StepError(
            Reason.SBOM_GENERATOR_FAILED,
            f"The generator that the operator's policy names in images.sbom left no SBOM for {image.platform}: have it "
            "write one as BuildKit's protocol says, or set attestations.sbom to false.",
        )
    if not spec.reproducible:
        return image, ()
    found = [
        rewrite(manifest, {digest: registry.small_blob(digest) for digest in needed(manifest)})
        for manifest in manifests
    ]
    listed = [
        {**descriptor, "digest": each.manifest.digest, "size": len(each.manifest.raw)}
        for descriptor, each in zip(image.attestations, found, strict=True)
    ]
    return replace(image, attestations=tuple(listed)), tuple(each for each in found if each.blobs)


def push(registry: Client, rewritten: Rewritten) -> None:
    """Store an attestation manifest and the blobs that only it has."""
    for digest, blob in rewritten.blobs.items():
        registry.put_blob(digest, blob, len(blob))
    registry.put(rewritten.manifest, rewritten.manifest.digest)
