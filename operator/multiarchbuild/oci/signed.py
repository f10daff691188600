"""Signatures and signed statements of an image in a registry, as both cosign 2 and cosign 3 look for them."""

from . import bundle, referrers, signing
from .client import Client
from .index import Descriptor
from .signature import Signer

_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"


def sign(registry: Client, subject: Descriptor, signer: Signer) -> tuple[str, list[bytes]]:
    """Sign a manifest of the registry in both forms; what `signer` has signed before stays as it is.

    Returns:
        The digest of the manifest with the signatures of cosign 2, and the statements about `subject` that `signer` had
        signed before.

    Raises:
        RegistryError: the registry refuses it.
    """
    digest = str(subject["digest"])
    signature = signing.sign(registry, digest, signer)
    own = bundle.statement([("", digest)], bundle.SIGN_PREDICATE, {})
    before = _statements(registry, digest, signer)
    if own not in before:
        attach(registry, subject, own, bundle.SIGN_PREDICATE, signer)
    return signature, before


def attach(registry: Client, subject: Descriptor, statement: bytes, predicate_type: str, signer: Signer) -> None:
    """Attach a statement, signed by `signer`, to a manifest of the registry.

    Raises:
        RegistryError: the registry refuses it.
    """
    annotations = {_CONTENT: "dsse-envelope", _PREDICATE_TYPE: predicate_type}
    artifact = referrers.Artifact(bundle.MEDIA_TYPE, bundle.seal(statement, signer), annotations)
    referrers.attach(registry, subject, artifact)


def _statements(registry: Client, digest: str, signer: Signer) -> list[bytes]:
    found = referrers.listed(registry, digest, bundle.MEDIA_TYPE)
    contents = (content for each in found if (content := referrers.content(registry, each)) is not None)
    return [opened for each in contents if (opened := bundle.opened(each, signer)) is not None]
