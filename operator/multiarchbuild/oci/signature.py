"""A signature, and what says whose it is: a key that verifiers have, or a certificate and a timestamp."""

from dataclasses import dataclass
from typing import Protocol

from multiarchbuild.api.keyless import SignedBy


class UnprovenError(Exception):
    """A certificate or timestamp that says something else than was asked for: what, and never a token."""


class ExpiredError(Exception):
    """A certificate that was valid when the run began to sign, and is no longer."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What says whose signature it is, and that it was made while the certificate was valid."""

    certificate: bytes
    """Certificate of the key that has signed (X.509, DER)."""
    chain: tuple[bytes, ...]
    """Those of its CA, the root last; nothing where they are not kept beside the signature."""
    timestamp: bytes
    """Answer of a timestamp authority about the signature (TimeStampResp of RFC 3161, DER)."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of some bytes."""

    value: bytes
    hint: str = ""
    """What tells the public key from others, where verifiers have it: the SHA-256 of its SubjectPublicKeyInfo."""
    certified: Certified | None = None
    """What says whose it is, where verifiers do not have the key."""


class Signer(Protocol):
    """What signs."""

    @property
    def signed_by(self) -> SignedBy | None:
        """Whose signatures these are, where a certificate says it."""

    def signature(self, payload: bytes) -> Signature:
        """Return a signature of `payload`."""

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        """Return whether `signature` is one of `payload` by this signer."""
