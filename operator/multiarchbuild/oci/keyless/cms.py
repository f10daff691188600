"""Who has signed a timestamp: the signature in it, and the certificate that it brings.

Verifiers follow that certificate to a root that they have. Here is no root, and most authorities send their own
certificate alone. Source: https://www.rfc-editor.org/rfc/rfc5652#section-5 (SignedData) and RFC 3161, section 2.4.2.
"""

from collections.abc import Iterable
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import TimeStampResponse

from multiarchbuild.oci.signature import UnprovenError

from .foreign import examined

_MESSAGE_DIGEST = x509.ObjectIdentifier("1.2.840.113549.1.9.4")
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_EC = ("1.2.840.10045.4.3.", "1.2.840.10045.2.1", "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35")
"""Beginnings of the names of signatures by ECDSA; some authorities name the curve."""
_RSA = "1.2.840.113549.1.1."


@asn1.sequence
class _Algorithm:
    oid: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _Attribute:
    oid: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _SignerInfo:
    version: int
    sid: asn1.TLV
    digest_algorithm: _Algorithm
    signed: Annotated[asn1.SetOf[_Attribute], asn1.Implicit(0)]
    signature_algorithm: _Algorithm
    signature: bytes
    unsigned: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class _Content:
    oid: x509.ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _SignedData:
    version: int
    digest_algorithms: asn1.SetOf[_Algorithm]
    content: _Content
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    revoked: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signers: asn1.SetOf[_SignerInfo]


@asn1.sequence
class _Token:
    oid: x509.ObjectIdentifier
    content: Annotated[_SignedData, asn1.Explicit(0)]


def authority(reply: TimeStampResponse) -> x509.Certificate:
    """Return the certificate of the authority that has signed a timestamp; it may be anybody's.

    Raises:
        UnprovenError: the timestamp is not signed by the certificate in it, or that is none for timestamps.
    """
    with examined("its timestamp has no signature that can be verified"):
        token = asn1.decode_der(_Token, reply.time_stamp_token()).content
        (signer,), (named,) = token.signers.as_list(), reply.signed_data.signer_infos
        certificates = map(x509.load_der_x509_certificate, reply.signed_data.certificates)
        (found,) = (
            each for each in certificates if (each.issuer, each.serial_number) == (named.issuer, named.serial_number)
        )
        if signer.digest_algorithm.oid not in [each.oid for each in token.digest_algorithms.as_list()]:
            raise ValueError(signer.digest_algorithm.oid)
        algorithm = _HASHES[signer.digest_algorithm.oid.dotted_string]
        if _digests(signer.signed.as_list()) != [_digest(algorithm, token.content.content)]:
            raise UnprovenError("the signature of its timestamp is of something else")
        _verify(found, signer, algorithm)
        usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        valid = found.not_valid_before_utc <= reply.tst_info.gen_time <= found.not_valid_after_utc
    if ExtendedKeyUsageOID.TIME_STAMPING not in usage or not valid:
        raise UnprovenError("the certificate in its timestamp is not for timestamps, or was not valid then")
    return found


def _digests(attributes: Iterable[_Attribute]) -> list[bytes]:
    return [value.parse(bytes) for each in attributes if each.oid == _MESSAGE_DIGEST for value in each.values.as_list()]


def _digest(algorithm: hashes.HashAlgorithm, content: bytes) -> bytes:
    found = hashes.Hash(algorithm)
    found.update(content)
    return found.finalize()


def _verify(certificate: x509.Certificate, signer: _SignerInfo, algorithm: hashes.HashAlgorithm) -> None:
    name, signature, signed = signer.signature_algorithm.oid, signer.signature, asn1.encode_der(signer.signed)
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() as key if name.dotted_string.startswith(_EC):
            key.verify(signature, signed, ec.ECDSA(algorithm))
        case rsa.RSAPublicKey() as key if name.dotted_string.startswith(_RSA):
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        case _:
            raise ValueError(name)
