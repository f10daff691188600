"""Signatures of an image, stored as cosign stores them beside it: under a tag that its digest makes.

Source: https://github.com/sigstore/cosign/blob/v3.1.2/specs/SIGNATURE_SPEC.md
"""

import base64
import binascii
import json
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final

from multiarchbuild.api.foreign import parse_object

from .client import Client
from .errors import NotFoundError, RefusedError
from .index import DOCKER_MANIFEST, MANIFEST, Manifest, digest_of
from .signature import Certified, Signature, Signer

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
"""Media type of what is signed."""
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
"""Annotation of a layer: the signature of its content, in base64."""
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_CHAIN = "dev.sigstore.cosign/chain"
_TIMESTAMP = "dev.sigstore.cosign/rfc3161timestamp"
"""Annotations of a layer whose signature is by a certificate: that, those of its CA (PEM), and when it was."""
_CONFIG = "application/vnd.oci.image.config.v1+json"
_TRIES = 3
"""How often a signature is added: of two builders that write the same tag at the same time one loses its own."""


def tag(digest: str) -> str:
    """Return the tag that names the signatures of `digest`."""
    return f"{digest.replace(':', '-')}.sig"


def signatures(client: Client, digest: str) -> Manifest | None:
    """Return the manifest whose layers are the signatures of `digest`, or None where there are none."""
    try:
        return client.resolve(tag(digest))
    except NotFoundError:
        return None


def sign(client: Client, digest: str, signer: Signer) -> str:
    """Add a signature of `digest` by `signer` to those that the repository has; return the digest of their manifest.

    Where one by this signer is there already it stays as it is: most signatures are random numbers, and each further
    try would add another.

    Raises:
        RegistryError: the registry refuses it, or has something else under its tag.
    """
    payload = _payload(str(client.repository), digest)
    made: Signature | None = None
    for _ in range(_TRIES):
        found = signatures(client, digest)
        layers = _layers(found, tag(digest)) if found else []
        if found and any(_is_ours(layer, payload, signer) for layer in layers):
            return found.digest
        made = made or signer.signature(payload)
        layers.append({**_blob(client, SIMPLE_SIGNING, payload), "annotations": _annotations(made)})
        client.put(_manifest(client, layers), tag(digest))
    raise RefusedError(
        f"{client.repository.registry} accepted the signature but does not return it under {tag(digest)}"
    )


def _payload(identity: str, digest: str) -> bytes:
    # The same bytes each time: by their digest a signature is found again.
    document = {
        "critical": {
            "identity": {"docker-reference": identity},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _layers(found: Manifest, where: str) -> list[Mapping[str, Any]]:
    try:
        layers = found.content["layers"]
        if found.media_type in (MANIFEST, DOCKER_MANIFEST) and all(
            isinstance(layer["digest"], str) for layer in layers
        ):
            return list(layers)
    except (ValueError, KeyError, TypeError):
        pass
    raise RefusedError(f"the tag {where} does not name signatures: delete the tag")


def _is_ours(layer: Mapping[str, Any], payload: bytes, signer: Signer) -> bool:
    try:
        signature = _read(layer["annotations"])
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        return False
    return layer["digest"] == digest_of(payload) and signer.has_made(payload, signature)


def _annotations(signature: Signature) -> dict[str, str]:
    found = {SIGNATURE: base64.b64encode(signature.value).decode()}
    if proof := signature.certified:
        found[_CERTIFICATE] = ssl.DER_cert_to_PEM_cert(proof.certificate)
        found[_CHAIN] = "".join(map(ssl.DER_cert_to_PEM_cert, proof.chain))
        found[_TIMESTAMP] = json.dumps({"SignedRFC3161Timestamp": base64.b64encode(proof.timestamp).decode()})
    return found


def _read(annotations: Mapping[str, Any]) -> Signature:
    value = base64.b64decode(annotations[SIGNATURE], validate=True)
    if _CERTIFICATE not in annotations:
        return Signature(value)
    stamped = parse_object(annotations[_TIMESTAMP], "the timestamp")["SignedRFC3161Timestamp"]
    certificate, chain = ssl.PEM_cert_to_DER_cert(annotations[_CERTIFICATE]), _certificates(annotations[_CHAIN])
    found = Signature(value, certified=Certified(certificate, chain, base64.b64decode(stamped, validate=True)))
    # What is written otherwise may be read otherwise, or by nobody.
    if not _annotations(found).items() <= annotations.items():
        raise ValueError("it is not as it is written here")
    return found


def _certificates(pem: str) -> tuple[bytes, ...]:
    """Return the certificates (DER), of which there is one at least."""
    parts = re.findall("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", pem)
    if not parts:
        raise ValueError("no certificates")
    return tuple(map(ssl.PEM_cert_to_DER_cert, parts))


def _manifest(client: Client, layers: list[Mapping[str, Any]]) -> Manifest:
    config = {
        "architecture": "",
        "config": {},
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(client, _CONFIG, json.dumps(config).encode()),
        "layers": layers,
    }
    return Manifest(MANIFEST, json.dumps(document).encode())


def _blob(client: Client, media_type: str, content: bytes) -> dict[str, Any]:
    client.put_blob(digest_of(content), content, len(content))
    return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}
