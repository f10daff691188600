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
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci.identity.requests import document, send
from multiarchbuild.oci.signature import UnprovenError

from .foreign import examined, is_issued_by, names

_PATH = "/api/v2/signingCert"
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
        StatusError: Fulcio does not take the token.
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
        texts = [each.encode() for each in found["chain"]["certificates"]]  # type: ignore[index]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnprovenError("it sent no certificates") from error
    with examined("it sent no certificates"):
        leaf, *chain = map(x509.load_pem_x509_certificate, texts)
        ours = leaf.public_key() == public
    if not ours:
        raise UnprovenError("its certificate is of another key than the one that was sent")
    if not chain:
        raise UnprovenError("it sent no certificate of its CA")
    for each, issuer in zip((leaf, *chain), chain, strict=False):
        if not is_issued_by(each, issuer):
            raise UnprovenError("its certificates do not lead to each other")
    names(leaf)
    return Certificate(leaf, tuple(chain))
