"""Sigstore bundles: an in-toto statement, signed with a key, in the form that cosign 3 writes and reads by default.

Sources: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md (DSSE),
https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md (statement) and
https://github.com/sigstore/protobuf-specs/blob/v0.5.0/protos/sigstore_bundle.proto (bundle v0.3, in protobuf's JSON)
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from multiarchbuild.api.foreign import parse_object

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Of a bundle, and artifactType of the manifest that attaches one."""
SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""What a statement says that is a signature and nothing more."""
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


class Key(Protocol):
    """What signs."""

    @property
    def hint(self) -> str:
        """What tells the public key from others: the SHA-256 of its SubjectPublicKeyInfo, in base64."""

    def sign(self, payload: bytes) -> bytes:
        """Return a signature of `payload`."""

    def has_signed(self, payload: bytes, signature: bytes) -> bool:
        """Return whether `signature` is one of `payload` by this key."""


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


def seal(payload: bytes, key: Key) -> bytes:
    """Return the bundle of a statement, signed by `key`."""
    envelope = {
        "payload": _base64(payload),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"sig": _base64(key.sign(pre_authentication(payload)))}],
    }
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.hint}},
        "dsseEnvelope": envelope,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def opened(bundle: bytes, key: Key) -> bytes | None:
    """Return the statement in a bundle that `key` has signed, or None: it is another's, or malformed."""
    try:
        envelope = parse_object(bundle, "the bundle")["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    message = pre_authentication(payload)
    return payload if any(key.has_signed(message, signature) for signature in signatures) else None


def pre_authentication(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of an in-toto statement."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
