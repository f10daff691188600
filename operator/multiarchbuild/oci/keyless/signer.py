"""A key that is made for one run, with a certificate that says whose it is."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci.signature import Certified, ExpiredError, Signature, UnprovenError

from .foreign import examined, is_issued_by, names
from .fulcio import Certificate
from .timestamps import Timestamp, read

_ALGORITHM = ec.ECDSA(hashes.SHA256())
_BEHIND: Final = 5.0
"""Seconds that the clock of the authority may be behind that of Fulcio."""
_STAMPS: Final = 3
"""How often a timestamp is asked for, while that clock is behind."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a key that nobody else has ever had."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(slots=True)
class KeylessSigner:
    """Signs as `cosign verify --certificate-identity … --certificate-oidc-issuer …` expects it."""

    _private: ec.EllipticCurvePrivateKey
    _certificate: Certificate
    _stamp: Callable[[bytes], Timestamp]
    """Returns the answer of a timestamp authority about a signature."""
    _pause: Callable[[float], None]
    _authorities: set[x509.Certificate] = field(default_factory=set)
    """Those that have answered: one at several addresses may have several certificates."""

    @classmethod
    def ready(
        cls,
        private: ec.EllipticCurvePrivateKey,
        certificate: Certificate,
        stamp: Callable[[bytes], Timestamp],
        pause: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Return a signer once the authority has answered, which tells whose timestamps and what time there are now.

        Raises:
            UnprovenError, StatusError, RefusedError, urllib3.exceptions.HTTPError: as `signature`.
        """
        signer = cls(private, certificate, stamp, pause)
        signer._stamped(certificate.certified[0])
        return signer

    @property
    def signed_by(self) -> SignedBy:
        """Whose signatures these are."""
        return self._certificate.signed_by

    def signature(self, payload: bytes) -> Signature:
        """Return a signature of `payload`, with what proves whose it is and that the certificate was valid then.

        Raises:
            ExpiredError: the certificate was valid before and is not any more.
            UnprovenError: the timestamp is none of the signature, or of another time than that of the certificate.
            StatusError, RefusedError, urllib3.exceptions.HTTPError: the authority gives none.
        """
        value = self._private.sign(payload, _ALGORITHM)
        timestamp = self._stamped(value)
        certificate, chain = self._certificate.certified
        return Signature(value, certified=Certified(certificate, chain, timestamp.reply))

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        """Return whether `signature` is one of `payload` by this identity, of the same CA and timestamp authority.

        That of an earlier run was made with another key: what verifiers look at is in certificate and timestamp.
        """
        proof = signature.certified
        if proof is None or (proof.chain and proof.chain != self._certificate.certified[1]):
            return False
        try:
            with examined("it can't be read"):
                leaf = x509.load_der_x509_certificate(proof.certificate)
                public = leaf.public_key()
                if not isinstance(public, ec.EllipticCurvePublicKey) or names(leaf) != self.signed_by:
                    return False
                public.verify(signature.value, payload, _ALGORITHM)
                timestamp = read(proof.timestamp, signature.value)
                _check_time(leaf, timestamp.time)
        except UnprovenError:
            return False
        return timestamp.authority in self._authorities and is_issued_by(leaf, self._certificate.chain[0])

    def _stamped(self, value: bytes) -> Timestamp:
        leaf = self._certificate.leaf
        for left in reversed(range(_STAMPS)):
            found = self._stamp(value)
            early = (leaf.not_valid_before_utc - found.time).total_seconds()
            if not left or not 0 < early <= _BEHIND:
                break
            self._pause(math.ceil(early))
        if self._authorities and found.time > leaf.not_valid_after_utc:
            raise ExpiredError(f"the certificate was valid until {leaf.not_valid_after_utc:%FT%TZ}")
        _check_time(leaf, found.time)
        self._authorities.add(found.authority)
        return found


def _check_time(certificate: x509.Certificate, time: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= time <= end:
        raise UnprovenError(
            f"its timestamp ({time:%FT%TZ}) is outside of the time of the certificate ({begin:%FT%TZ} to {end:%TZ}): "
            "compare the clocks of Fulcio and the timestamp authority"
        )
