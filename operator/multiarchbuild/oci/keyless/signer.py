"""A key that is made for one run, with a certificate that says whose it is."""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci.signature import Certified, Signature, UnprovenError

from .fulcio import Certificate, is_issued_by, names
from .timestamps import time_of

_ALGORITHM = ec.ECDSA(hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a key that nobody else has ever had."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Signs as `cosign verify --certificate-identity … --certificate-oidc-issuer …` expects it."""

    _private: ec.EllipticCurvePrivateKey
    _certificate: Certificate
    _stamp: Callable[[bytes], bytes]
    """Returns the answer of a timestamp authority about a signature."""

    @property
    def signed_by(self) -> SignedBy:
        """Whose signatures these are."""
        return self._certificate.signed_by

    def signature(self, payload: bytes) -> Signature:
        """Return a signature of `payload`, with what proves whose it is and that the certificate was valid then.

        Raises:
            UnprovenError: the timestamp is none of the signature, or of another time than that of the certificate.
            DeniedError, RefusedError, urllib3.exceptions.HTTPError: the authority gives none.
        """
        value = self._private.sign(payload, _ALGORITHM)
        timestamp = self._stamp(value)
        _check_time(self._certificate.leaf, timestamp, value)
        certificate, chain = self._certificate.certified
        return Signature(value, certified=Certified(certificate, chain, timestamp))

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        """Return whether `signature` is one of `payload` by this identity, certified by the same CA.

        That of an earlier run was made with another key: what verifiers look at is in the certificate.
        """
        proof = signature.certified
        if proof is None:
            return False
        try:
            leaf = x509.load_der_x509_certificate(proof.certificate)
            public = leaf.public_key()
            if not isinstance(public, ec.EllipticCurvePublicKey) or names(leaf) != self.signed_by:
                return False
            public.verify(signature.value, payload, _ALGORITHM)
            _check_time(leaf, proof.timestamp, signature.value)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, UnprovenError):
            return False
        return is_issued_by(leaf, self._certificate.chain[0])


def _check_time(certificate: x509.Certificate, timestamp: bytes, signature: bytes) -> None:
    time = time_of(timestamp, signature)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= time <= end:
        raise UnprovenError(
            f"its timestamp ({time:%FT%TZ}) is outside of the time of the certificate ({begin:%FT%TZ} to {end:%TZ}): "
            "compare the clocks of Fulcio and the timestamp authority"
        )
