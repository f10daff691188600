"""Certificates that somebody else has made: each look at one may fail, and then it proves nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.asn1 import decode_der

from multiarchbuild.api import limits
from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci.signature import UnprovenError

_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
"""Extension with the issuer of the token, a UTF8String."""
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.AttributeNotFound,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises, when a certificate is loaded and at each look at its parts: there is no common base."""


@contextmanager
def examined(words: str) -> Iterator[None]:
    """Raise UnprovenError with `words` where the block can't read a certificate, or a signature is wrong."""
    try:
        yield
    except _UNREADABLE as error:
        raise UnprovenError(words) from error


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether `issuer` is a CA that has signed `certificate`."""
    try:
        with examined(""):
            certificate.verify_directly_issued_by(issuer)
            return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except UnprovenError:
        return False


def names(certificate: x509.Certificate) -> SignedBy:
    """Return whom a certificate names, and who has vouched for that.

    Raises:
        UnprovenError: it names nobody.
    """
    nobody = "its certificate does not name an identity and an issuer"
    with examined(nobody):
        extensions = certificate.extensions
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = extensions.get_extension_for_oid(_ISSUER).value
        (identity,) = (each.value for each in alternatives)
        issuer = decode_der(str, found.value) if isinstance(found, x509.UnrecognizedExtension) else ""
    if not isinstance(identity, str) or not identity or not issuer:
        raise UnprovenError(nobody)
    if len(identity) > limits.IDENTITY or len(issuer) > limits.ISSUER:
        raise UnprovenError("the identity or the issuer in its certificate is longer than expected")
    return SignedBy(identity=identity, issuer=issuer)
