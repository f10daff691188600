"""Certificates and timestamps, as data.

One timestamp was recorded from Sigstore's timestamp authority, one from OpenSSL's with an RSA key and SHA-512.
"""

import base64
import datetime as dt
import io
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.oci import bundle
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.identity.requests import send
from multiarchbuild.oci.keyless import Certificate, KeylessSigner, Timestamp, new_key, stamp, timestamps
from multiarchbuild.oci.keyless.foreign import is_issued_by
from multiarchbuild.oci.keyless.fulcio import read
from multiarchbuild.oci.signature import Certified, ExpiredError, Signature, UnprovenError
from tests.support import authorities

PRIVATE = new_key()
KEY, PAYLOAD, TIME = PRIVATE.public_key(), b"payload", dt.datetime.now(dt.UTC).replace(microsecond=0)
SIGNATURE = PRIVATE.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
IDENTITY = "https://kubernetes.io/namespaces/team/serviceaccounts/builder"
ISSUER = "https://issuer.example.com"
CA, OTHER_CA = authorities.root("one"), authorities.root("other")
STAMPS, OTHER_STAMPS = (authorities.Authorities.new().timestamps for _ in range(2))
REPLY = authorities.timestamp(STAMPS, SIGNATURE, TIME)
SECOND = dt.timedelta(seconds=1)
JWT = f"ey{'a' * 20}.ey{'b' * 40}.{'c' * 60}"


@dataclass
class Stamping:
    """A timestamp authority with a clock of its own."""

    now: dt.datetime = TIME
    by: authorities.Certified = STAMPS
    pauses: list[float] = field(default_factory=list)

    def __call__(self, signature: bytes) -> Timestamp:
        return timestamps.read(authorities.timestamp(self.by, signature, self.now), signature)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += dt.timedelta(seconds=seconds)


class Answering(urllib3.PoolManager):
    """Answers each request."""

    def __init__(self, answer: Callable[[bytes], bytes], status: int = 200, reason: str = "OK") -> None:
        super().__init__()
        self._answer, self._status, self._reason = answer, status, reason

    def urlopen(self, _: str, url: str, **request: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        body = io.BytesIO(self._answer(request.get("body") or b""))
        return urllib3.HTTPResponse(
            body, status=self._status, reason=self._reason, preload_content=False, request_url=url
        )


def certificate(
    key: ec.EllipticCurvePublicKey = KEY,
    *,
    identity: str = IDENTITY,
    issuer: str | None = ISSUER,
    by: authorities.Certified = CA,
    begin: dt.datetime = TIME - dt.timedelta(minutes=1),
    tag: int = 12,
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
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, bytes([tag, len(text)]) + text), critical=False)
    return builder.sign(by.key, hashes.SHA256())


def answer(*certificates: x509.Certificate, sct: str = "Detached") -> dict[str, Any]:
    chain = {"certificates": [each.public_bytes(Encoding.PEM).decode() for each in certificates]}
    return {f"signedCertificate{sct}Sct": {"chain": chain}}


def signer(leaf: x509.Certificate | None = None, authority: Stamping | None = None) -> KeylessSigner:
    authority = authority or Stamping()
    return KeylessSigner.ready(PRIVATE, Certificate(leaf or certificate(), CA.chain), authority, authority.pause)


def made(
    leaf: x509.Certificate | None = None,
    *,
    value: bytes = SIGNATURE,
    timestamp: bytes = REPLY,
    chain: tuple[bytes, ...] = (),
) -> Signature:
    der = (leaf or certificate()).public_bytes(Encoding.DER)
    return Signature(value, certified=Certified(der, chain, timestamp))


def flipped(content: bytes, *places: int) -> bytes:
    return bytes(
        each ^ 1 if place in {at % len(content) for at in places} else each for place, each in enumerate(content)
    )


def of(chain: tuple[x509.Certificate, ...]) -> tuple[bytes, ...]:
    return tuple(each.public_bytes(Encoding.DER) for each in chain)


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
        (answer(certificate(issuer=""), *CA.chain), "does not name an identity"),
        (answer(certificate(issuer="x" * 100, tag=2), *CA.chain), "does not name an identity"),
        (answer(certificate(identity=f"https://{'x' * 400}"), *CA.chain), "longer than expected"),
    ],
)
def test_what_is_no_certificate_of_ours_is_refused(found: dict[str, Any], words: str) -> None:
    with pytest.raises(UnprovenError, match=words):
        read(found, KEY)


def test_each_link_of_the_chain_is_verified() -> None:
    fulcio = authorities.Authorities.new().fulcio
    leaf = certificate(by=fulcio)
    assert read(answer(leaf, *fulcio.chain), KEY).chain == fulcio.chain
    (named_alike,) = authorities.root("fulcio root").chain
    with pytest.raises(UnprovenError, match="do not lead to each other"):
        read(answer(leaf, fulcio.chain[0], named_alike), KEY)


def test_only_a_ca_issues_certificates() -> None:
    usual = authorities.issued("no CA", CA, ExtendedKeyUsageOID.CODE_SIGNING)
    leaf = certificate(by=usual)
    leaf.verify_directly_issued_by(usual.chain[0])
    assert not is_issued_by(leaf, usual.chain[0])
    with pytest.raises(UnprovenError, match="do not lead to each other"):
        read(answer(leaf, *usual.chain), KEY)


@pytest.mark.parametrize("file", ["timestamp.json", "timestamp-rsa.json"])
def test_a_timestamp_is_of_one_signature_and_answers_one_query(file: str) -> None:
    recorded = json.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))
    signature, reply = (base64.b64decode(recorded[name]) for name in ("signature", "reply"))
    found = timestamps.read(reply, signature)
    assert (found.time.isoformat(), found.reply) == (recorded["time"], reply)
    with pytest.raises(UnprovenError, match="no signature that can be verified"):
        timestamps.read(flipped(reply, -1), signature)
    with pytest.raises(UnprovenError, match="something else than the signature"):
        timestamps.read(reply, b"another")
    with pytest.raises(UnprovenError, match="answers another query"):
        timestamps.read(reply, signature, nonce=1)


def test_an_answer_to_another_query_is_refused() -> None:
    replayed = authorities.timestamp(STAMPS, SIGNATURE, TIME, nonce=7)
    with pytest.raises(UnprovenError, match="answers another query"):
        stamp(Answering(lambda _: replayed), "https://tsa.example.com", SIGNATURE)


def test_a_timestamp_that_its_certificate_has_not_signed_is_refused() -> None:
    with pytest.raises(UnprovenError, match="no signature that can be verified"):
        timestamps.read(flipped(REPLY, -1), SIGNATURE)
    at = REPLY.index(f"{TIME:%Y%m%d%H%M%SZ}".encode())
    with pytest.raises(UnprovenError, match="is of something else"):
        timestamps.read(flipped(REPLY, at + 3), SIGNATURE)


def test_a_certificate_that_is_not_for_timestamps_or_not_valid_then_makes_none() -> None:
    other = authorities.issued("other", CA, ExtendedKeyUsageOID.CODE_SIGNING)
    for by, when in ((other, TIME), (STAMPS, TIME + dt.timedelta(days=2))):
        with pytest.raises(UnprovenError, match="not for timestamps, or was not valid then"):
            timestamps.read(authorities.timestamp(by, SIGNATURE, when), SIGNATURE)


@pytest.mark.parametrize(("said", "told"), [(b"no", "no"), (b"a\x1b[2Jb\n" + b"c" * 70, f"a [2Jb {'c' * 70}")])
def test_a_timestamp_that_is_not_granted_says_why(said: bytes, told: str) -> None:
    with pytest.raises(UnprovenError) as failed:
        timestamps.read(rejection(said), SIGNATURE)
    assert str(failed.value) == f"it granted no timestamp (status 2: {told})"


def test_no_token_comes_back_in_a_message() -> None:
    with pytest.raises(UnprovenError) as failed:
        timestamps.read(rejection(JWT.encode()), SIGNATURE)
    assert JWT[:10] not in str(failed.value)
    with pytest.raises(RegistryError) as refused:
        send(Answering(lambda _: b"", 400, f"No {JWT} {'long ' * 1000}"), "POST", "https://fulcio.example.com", {})
    assert str(refused.value).startswith("fulcio.example.com answered 400 No … long")
    assert len(str(refused.value)) < 500


def rejection(said: bytes) -> bytes:
    """Return PKIStatusInfo ::= SEQUENCE { status 2 (rejection), statusString { said } }."""
    content = bytes([0x0C]) + size(said) + said
    content = bytes.fromhex("020102") + b"\x30" + size(content) + content
    content = b"\x30" + size(content) + content
    return b"\x30" + size(content) + content


def size(content: bytes) -> bytes:
    return bytes([len(content)] if len(content) < 0x80 else [0x81, len(content)])


@given(st.binary(max_size=64) | st.integers(0, len(REPLY) - 1).map(lambda end: REPLY[:end]))
def test_what_is_no_timestamp_is_refused(reply: bytes) -> None:
    with pytest.raises(UnprovenError):
        timestamps.read(reply, SIGNATURE)


def test_a_signature_of_the_same_identity_is_known_whatever_key_it_was_made_with() -> None:
    key, begin = new_key(), TIME + dt.timedelta(hours=1)
    leaf = Certificate(certificate(key.public_key(), begin=begin), CA.chain)
    later = KeylessSigner.ready(key, leaf, Stamping(begin))
    assert later.has_made(PAYLOAD, made())
    assert later.has_made(PAYLOAD, made(chain=of(CA.chain)))


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
        made(value=flipped(SIGNATURE, -1)),
        made(timestamp=b""),
        made(timestamp=REPLY[:-1]),
        made(timestamp=flipped(REPLY, -1)),
        made(timestamp=authorities.timestamp(OTHER_STAMPS, SIGNATURE, TIME)),
        made(chain=of(OTHER_CA.chain)),
        Signature(SIGNATURE, certified=Certified(b"x", (), REPLY)),
    ],
)
def test_a_signature_by_somebody_else_or_at_another_time_is_not_ours(signature: Signature) -> None:
    assert not signer().has_made(PAYLOAD, signature)


def test_a_signature_of_something_else_is_not_ours() -> None:
    assert not signer().has_made(b"other", made())


LEAF = certificate().public_bytes(Encoding.DER)
SIGNER = signer()


def unusual(*extensions: tuple[str, str]) -> bytes:
    """Return a certificate with these extensions (name, content in hex)."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(CA.chain[0].subject)
        .public_key(KEY)
        .serial_number(1)
        .not_valid_before(TIME)
        .not_valid_after(TIME + SECOND)
    )
    for name, content in extensions:
        found = x509.UnrecognizedExtension(x509.ObjectIdentifier(name), bytes.fromhex(content))
        builder = builder.add_extension(found, critical=False)
    return builder.sign(CA.key, hashes.SHA256()).public_bytes(Encoding.DER)


TWICE = unusual(("1.3.6.1.4.1.57264.1.8", "0c0161"), ("1.3.6.1.4.1.57264.1.9", "0c0161"))
HOSTILE = {
    "an extension twice": TWICE.replace(bytes.fromhex("83bf300109"), bytes.fromhex("83bf300108")),
    "a name of an unsupported kind": unusual(("2.5.29.17", "3004a3020500")),
    "another version": LEAF.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),
    "a key on an unknown curve": LEAF.replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("der", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_certificate_that_cannot_be_read_is_not_ours(der: bytes) -> None:
    assert_nothing_is_proven_by(der)


@pytest.mark.filterwarnings("ignore")
@given(st.sets(st.integers(0, len(LEAF) - 1), min_size=1, max_size=3).map(lambda at: flipped(LEAF, *at)))
def test_a_certificate_that_was_tampered_with_is_never_more_than_not_ours(der: bytes) -> None:
    assert_nothing_is_proven_by(der)


def assert_nothing_is_proven_by(der: bytes) -> None:
    assert SIGNER.has_made(PAYLOAD, Signature(SIGNATURE, certified=Certified(der, (), REPLY))) is False
    found = answer(*CA.chain)
    found["signedCertificateDetachedSct"]["chain"]["certificates"].insert(0, ssl.DER_cert_to_PEM_cert(der))
    with pytest.raises(UnprovenError):
        read(found, KEY)


@pytest.mark.filterwarnings("ignore")
@given(st.sets(st.integers(0, len(REPLY) - 1), min_size=1, max_size=3).map(lambda at: flipped(REPLY, *at)))
def test_a_timestamp_that_was_tampered_with_is_never_more_than_not_ours(reply: bytes) -> None:
    assert isinstance(SIGNER.has_made(PAYLOAD, made(timestamp=reply)), bool)


def test_what_is_signed_is_known_again() -> None:
    ours = signer()
    assert ours.has_made(PAYLOAD, ours.signature(PAYLOAD))


def test_a_clock_that_is_seconds_behind_is_waited_for() -> None:
    begin = TIME + 3 * SECOND
    authority = Stamping(TIME)
    assert signer(certificate(begin=begin), authority).signature(PAYLOAD)
    assert authority.pauses == [3]


def test_a_clock_that_stands_still_is_not_waited_for_forever() -> None:
    waited: list[float] = []
    leaf = Certificate(certificate(begin=TIME + SECOND), CA.chain)
    with pytest.raises(UnprovenError, match="compare the clocks"):
        KeylessSigner.ready(PRIVATE, leaf, Stamping(TIME), waited.append)
    assert waited == [1, 1]


@pytest.mark.parametrize("difference", [dt.timedelta(seconds=-66), dt.timedelta(minutes=11)])
def test_a_larger_difference_of_clocks_is_told(difference: dt.timedelta) -> None:
    authority = Stamping(TIME + difference)
    with pytest.raises(UnprovenError, match="compare the clocks"):
        signer(authority=authority)
    assert not authority.pauses


def test_what_is_signed_when_the_certificate_is_no_longer_valid_is_refused() -> None:
    authority = Stamping()
    ours = signer(authority=authority)
    authority.now += dt.timedelta(minutes=9, seconds=1)
    with pytest.raises(ExpiredError, match="valid until"):
        ours.signature(PAYLOAD)


def test_what_is_signed_before_the_certificate_is_valid_is_refused() -> None:
    authority = Stamping()
    ours = signer(authority=authority)
    authority.now -= dt.timedelta(minutes=2)
    with pytest.raises(UnprovenError, match="compare the clocks"):
        ours.signature(PAYLOAD)


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
