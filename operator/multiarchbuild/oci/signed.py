"""Signatures and signed statements of an image in a registry, as both cosign 2 and cosign 3 look for them."""

from . import bundle, referrers, signing
from .client import Client
from .index import Descriptor

_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"


def sign(registry: Client, subject: Descriptor, key: bundle.Key) -> tuple[str, list[bytes]]:
    """Sign a manifest of the registry in both forms; what `key` has signed before stays as it is.

    Returns:
        The digest of the manifest with the signatures of cosign 2, and the statements about `subject` that `key` had
        signed before.

    Raises:
        RegistryError: the registry refuses it.
    """
    digest = str(subject["digest"])
    signature = signing.sign(registry, digest, key)
    own = bundle.statement([("", digest)], bundle.SIGN_PREDICATE, {})
    before = _statements(registry, digest, key)
    if own not in before:
        attach(registry, subject, own, bundle.SIGN_PREDICATE, key)
    return signature, before


def attach(registry: Client, subject: Descriptor, statement: bytes, predicate_type: str, key: bundle.Key) -> None:
    """Attach a statement, signed by `key`, to a manifest of the registry.

    Raises:
        RegistryError: the registry refuses it.
    """
    annotations = {_CONTENT: "dsse-envelope", _PREDICATE_TYPE: predicate_type}
    artifact = referrers.Artifact(bundle.MEDIA_TYPE, bundle.seal(statement, key), annotations)
    referrers.attach(registry, subject, artifact)


def _statements(registry: Client, digest: str, key: bundle.Key) -> list[bytes]:
    found = referrers.listed(registry, digest, bundle.MEDIA_TYPE)
    contents = (content for each in found if (content := referrers.content(registry, each)) is not None)
    return [opened for each in contents if (opened := bundle.opened(each, key)) is not None]
