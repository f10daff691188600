"""Certificates and timestamps, as data: one timestamp was recorded from Sigstore's timestamp authority."""

import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci import bundle
from multiarchbuild.oci.keyless import Certificate, KeylessSigner, new_key
from multiarchbuild.oci.keyless.fulcio import read
from multiarchbuild.oci.keyless.timestamps import time_of
from multiarchbuild.oci.signature import Certified, Signature, UnprovenError
from tests.support import authorities

RECORDED = json.loads((Path(__file__).parent / "timestamp.json").read_text(encoding="utf-8"))
SIGNATURE, REPLY = (base64.b64decode(RECORDED[name]) for name in ("signature", "reply"))
PAYLOAD, TIME = RECORDED["payload"].encode(), dt.datetime.fromisoformat(RECORDED["time"])
KEY = cast("ec.EllipticCurvePublicKey", load_pem_public_key(RECORDED["public"].encode()))
IDENTITY = "https://kubernetes.io/namespaces/team/serviceaccounts/builder"
ISSUER = "https://issuer.example.com"
CA, OTHER_CA = authorities.root("one"), authorities.root("other")


def certificate(
    key: ec.EllipticCurvePublicKey = KEY,
    *,
    identity: str = IDENTITY,
    issuer: str | None = ISSUER,
    by: authorities.Certified = CA,
    begin: dt.datetime = TIME - dt.timedelta(minutes=1),
) -> x509.Certificate:
    """Return what Fulcio makes."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(by.chain[0].subject)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(minutes=10))
    )
    if identity:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        builder = builder.add_extension(names, critical=True)
    if issuer is not None:
        oid, text = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), issuer.encode()
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, bytes([12, len(text)]) + text), critical=False)
    return builder.sign(by.key, hashes.SHA256())


def answer(*certificates: x509.Certificate, sct: str = "Detached") -> dict[str, Any]:
    chain = {"certificates": [each.public_bytes(Encoding.PEM).decode() for each in certificates]}
    return {f"signedCertificate{sct}Sct": {"chain": chain}}


def signer(leaf: x509.Certificate | None = None, stamp: Callable[[bytes], bytes] = lambda _: REPLY) -> KeylessSigner:
    return KeylessSigner(new_key(), Certificate(leaf or certificate(), CA.chain), stamp)


def made(leaf: x509.Certificate | None = None, *, value: bytes = SIGNATURE, timestamp: bytes = REPLY) -> Signature:
    der = (leaf or certificate()).public_bytes(Encoding.DER)
    return Signature(value, certified=Certified(der, (), timestamp))


@pytest.mark.parametrize("sct", ["Detached", "Embedded"])
def test_a_certificate_of_our_key_names_who_signs(sct: str) -> None:
    found = read(answer(certificate(), *CA.chain, sct=sct), KEY)
    assert found.signed_by == SignedBy(identity=IDENTITY, issuer=ISSUER)
    assert found.chain == CA.chain


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "it sent no certificates"),
        ({"signedCertificateDetachedSct": {"chain": {"certificates": []}}}, "it sent no certificates"),
        ({"signedCertificateDetachedSct": {"chain": {"certificates": ["x"]}}}, "it sent no certificates"),
        ({"signedCertificateDetachedSct": {"chain": {"certificates": [1]}}}, "it sent no certificates"),
        ({"signedCertificateDetachedSct": []}, "it sent no certificates"),
        (answer(certificate(new_key().public_key()), *CA.chain), "another key"),
        (answer(certificate()), "no certificate of its CA"),
        (answer(certificate(), *OTHER_CA.chain), "do not lead to each other"),
        (answer(certificate(identity=""), *CA.chain), "does not name an identity"),
        (answer(certificate(issuer=None), *CA.chain), "does not name an identity"),
        (answer(certificate(issuer=""), *CA.chain), "longer than expected"),
        (answer(certificate(identity=f"https://{'x' * 400}"), *CA.chain), "longer than expected"),
    ],
)
def test_what_is_no_certificate_of_ours_is_refused(found: dict[str, Any], words: str) -> None:
    with pytest.raises(UnprovenError, match=words):
        read(found, KEY)


def test_a_timestamp_is_of_one_signature_and_answers_one_query() -> None:
    assert time_of(REPLY, SIGNATURE) == TIME
    with pytest.raises(UnprovenError, match="something else than the signature"):
        time_of(REPLY, b"another")
    with pytest.raises(UnprovenError, match="answers another query"):
        time_of(REPLY, SIGNATURE, nonce=1)


def test_a_timestamp_that_is_not_granted_says_why() -> None:
    # PKIStatusInfo ::= SEQUENCE { status 2 (rejection), statusString { "no" } }
    with pytest.raises(UnprovenError, match=r"it granted no timestamp \(status 2: no\)"):
        time_of(bytes.fromhex("300b" + "3009" + "020102" + "3004" + "0c026e6f"), SIGNATURE)


@given(st.binary(max_size=64) | st.integers(0, len(REPLY) - 1).map(lambda end: REPLY[:end]))
def test_what_is_no_timestamp_is_refused(reply: bytes) -> None:
    with pytest.raises(UnprovenError):
        time_of(reply, SIGNATURE)


def test_a_signature_of_the_same_identity_is_known_whatever_key_it_was_made_with() -> None:
    later = signer(certificate(begin=TIME + dt.timedelta(days=30)))
    assert later.has_made(PAYLOAD, made())


@pytest.mark.parametrize(
    "signature",
    [
        Signature(SIGNATURE),
        made(certificate(identity=IDENTITY.replace("team", "other"))),
        made(certificate(issuer="https://other.example.com")),
        made(certificate(by=OTHER_CA)),
        made(certificate(new_key().public_key())),
        made(certificate(begin=TIME + dt.timedelta(minutes=1))),
        made(certificate(begin=TIME - dt.timedelta(minutes=11))),
        made(value=SIGNATURE[:-1] + bytes([SIGNATURE[-1] ^ 1])),
        made(timestamp=b""),
        made(timestamp=REPLY[:-1]),
        Signature(SIGNATURE, certified=Certified(b"x", (), REPLY)),
    ],
)
def test_a_signature_by_somebody_else_or_at_another_time_is_not_ours(signature: Signature) -> None:
    assert not signer().has_made(PAYLOAD, signature)


def test_a_signature_of_something_else_is_not_ours() -> None:
    assert not signer().has_made(b"other", made())


def test_nothing_is_signed_without_a_timestamp_of_it() -> None:
    with pytest.raises(UnprovenError, match="something else than the signature"):
        signer().signature(PAYLOAD)


MADE = made()


class Recorded:
    """Signs with what was recorded."""

    signed_by = SignedBy(identity=IDENTITY, issuer=ISSUER)

    def signature(self, _: bytes) -> Signature:
        return MADE

    def has_made(self, _: bytes, signature: Signature) -> bool:
        return signature == MADE


def test_a_bundle_has_certificate_and_timestamp() -> None:
    sealed = bundle.seal(b"{}", Recorded())
    material = json.loads(sealed)["verificationMaterial"]
    assert material.keys() == {"certificate", "timestampVerificationData"}
    (stamped,) = material["timestampVerificationData"]["rfc3161Timestamps"]
    assert base64.b64decode(stamped["signedTimestamp"]) == REPLY
    assert bundle.opened(sealed, Recorded()) == b"{}"
    assert bundle.opened(sealed, signer()) is None, "of other bytes"
