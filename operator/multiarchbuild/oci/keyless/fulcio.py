"""Certificates by Fulcio, for a token of the ServiceAccount.

Sources: https://github.com/sigstore/fulcio/blob/v1.8.8/fulcio.proto (CreateSigningCertificate) and
https://github.com/sigstore/fulcio/blob/v1.8.8/docs/oid-info.md
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import urllib3
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.asn1 import decode_der
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from multiarchbuild.api import limits
from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci.identity.requests import document, send
from multiarchbuild.oci.signature import UnprovenError

_PATH = "/api/v2/signingCert"
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
"""Extension with the issuer of the token, a UTF8String."""
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, and those that it leads to."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Of its CA, the root last."""

    @property
    def signed_by(self) -> SignedBy:
        """Whom it names."""
        return names(self.leaf)

    @property
    def certified(self) -> tuple[bytes, tuple[bytes, ...]]:
        """The certificate and its chain (DER)."""
        return self.leaf.public_bytes(Encoding.DER), tuple(each.public_bytes(Encoding.DER) for each in self.chain)


def certify(http: urllib3.PoolManager, url: str, token: str, key: ec.EllipticCurvePrivateKey) -> Certificate:
    """Return a certificate of `key` for whom `token` names; `url` is Fulcio's.

    Raises:
        DeniedError: Fulcio does not take the token.
        RefusedError: it has an error of its own.
        UnprovenError: what it has sent is no certificate of this key.
        urllib3.exceptions.HTTPError: there is no answer.
    """
    # Its signature proves that the key is ours.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    body = {
        "credentials": {"oidcIdentityToken": token},
        "certificateSigningRequest": base64.b64encode(request.public_bytes(Encoding.PEM)).decode(),
    }
    answer = send(http, "POST", url.rstrip("/") + _PATH, _JSON, json.dumps(body))
    return read(document(answer), key.public_key())


def read(answer: dict[str, Any], public: ec.EllipticCurvePublicKey) -> Certificate:
    """Return the certificate in an answer of Fulcio, if it is one of `public`.

    Raises:
        UnprovenError: it is not.
    """
    found = answer.get("signedCertificateEmbeddedSct") or answer.get("signedCertificateDetachedSct")
    try:
        leaf, *chain = (x509.load_pem_x509_certificate(each.encode()) for each in found["chain"]["certificates"])  # type: ignore[index]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnprovenError("it sent no certificates") from error
    if leaf.public_key() != public:
        raise UnprovenError("its certificate is of another key than the one that was sent")
    if not chain:
        raise UnprovenError("it sent no certificate of its CA")
    for each, issuer in zip((leaf, *chain), chain, strict=False):
        if not is_issued_by(each, issuer):
            raise UnprovenError("its certificates do not lead to each other")
    names(leaf)
    return Certificate(leaf, tuple(chain))


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether the CA `issuer` has signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names(certificate: x509.Certificate) -> SignedBy:
    """Return whom a certificate names, and who has vouched for that.

    Raises:
        UnprovenError: it names nobody.
    """
    try:
        extensions = certificate.extensions
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = extensions.get_extension_for_oid(_ISSUER).value
        (identity,) = (each.value for each in alternatives)
        issuer = decode_der(str, found.value) if isinstance(found, x509.UnrecognizedExtension) else ""
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise UnprovenError("its certificate does not name an identity and an issuer") from error
    if not isinstance(identity, str) or len(identity) > limits.IDENTITY or not 0 < len(issuer) <= limits.ISSUER:
        raise UnprovenError("the identity or the issuer in its certificate is longer than expected")
    return SignedBy(identity=identity, issuer=issuer)
