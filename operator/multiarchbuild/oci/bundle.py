"""Sigstore bundles: a signed in-toto statement in the form that cosign 3 writes and reads by default.

Sources: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md (DSSE),
https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md (statement) and
https://github.com/sigstore/protobuf-specs/blob/v0.5.0/protos/sigstore_bundle.proto (bundle v0.3, in protobuf's JSON)
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from multiarchbuild.api.foreign import parse_object

from .signature import Certified, Signature, Signer

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Of a bundle, and artifactType of the manifest that attaches one."""
SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""What a statement says that is a signature and nothing more."""
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def statement(subjects: Sequence[tuple[str, str]], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """Return an in-toto statement about `subjects` (name, digest); the same input makes the same bytes."""
    document = {
        "_type": _STATEMENT,
        "subject": [_subject(name, digest) for name, digest in subjects],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _subject(name: str, digest: str) -> dict[str, Any]:
    algorithm, _, value = digest.partition(":")
    named = {"name": name} if name else {}
    return {**named, "digest": {algorithm: value}}


def seal(payload: bytes, signer: Signer) -> bytes:
    """Return the bundle of a statement, signed by `signer`."""
    signature = signer.signature(pre_authentication(payload))
    envelope = {
        "payload": _base64(payload),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"sig": _base64(signature.value)}],
    }
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": _material(signature),
        "dsseEnvelope": envelope,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _material(signature: Signature) -> dict[str, Any]:
    proof = signature.certified
    if proof is None:
        return {"publicKey": {"hint": signature.hint}}
    # Of the CA verifiers have the certificates: a bundle of this version has none.
    return {
        "certificate": {"rawBytes": _base64(proof.certificate)},
        "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": _base64(proof.timestamp)}]},
    }


def opened(bundle: bytes, signer: Signer) -> bytes | None:
    """Return the statement in a bundle that `signer` has signed, or None: it is another's, or malformed."""
    try:
        document = parse_object(bundle, "the bundle")
        envelope, certified = document["dsseEnvelope"], _certified(document["verificationMaterial"])
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    message = pre_authentication(payload)
    made = (Signature(signature, certified=certified) for signature in signatures)
    return payload if any(signer.has_made(message, each) for each in made) else None


def _certified(material: Mapping[str, Any]) -> Certified | None:
    if "certificate" not in material:
        return None
    (stamped,) = material["timestampVerificationData"]["rfc3161Timestamps"]
    certificate, timestamp = material["certificate"]["rawBytes"], stamped["signedTimestamp"]
    return Certified(base64.b64decode(certificate, validate=True), (), base64.b64decode(timestamp, validate=True))


def pre_authentication(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of an in-toto statement."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
