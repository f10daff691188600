"""Keys that sign: what cosign and openssl write is read, and of everything else it is said what is wrong with it."""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from multiarchbuild.oci.keys import InvalidKeyError, SigningKey, load
from tests.support.signing import PASSWORD, armoured, encrypted, key_pair, pkcs8

REAL = Path(__file__).parent / "cosign"
"""Made by `cosign generate-key-pair` v3.1.2 for these tests; its password:"""
REAL_PASSWORD = b"correct-horse"
PAYLOAD = b"what is signed"
OPERATOR = str(Path(__file__).parents[3] / "operator")

P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
ENCRYPTED = encrypted(pkcs8(P256), PASSWORD).encode()
USABLE: dict[str, PrivateKeyTypes] = {"P-256": P256, "Ed25519": ED25519, "RSA": RSA}


def pem(key: PrivateKeyTypes, password: str = "", shape: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, shape, encryption)


def signs(key: SigningKey) -> bool:
    signature = key.sign(PAYLOAD)
    return key.has_signed(PAYLOAD, signature) and not key.has_signed(PAYLOAD + b"!", signature)


def test_a_key_that_cosign_made() -> None:
    key = load((REAL / "cosign.key").read_bytes(), REAL_PASSWORD)
    public = load_pem_public_key((REAL / "cosign.pub").read_bytes())
    assert key._private.public_key() == public
    assert signs(key)


@pytest.mark.parametrize(
    ("key", "kind", "cost"), [(P256, "COSIGN", 2**15), (ED25519, "SIGSTORE", 2**16), (RSA, "SIGSTORE", 2**17)]
)
def test_keys_as_cosign_has_ever_encrypted_them(key: PrivateKeyTypes, kind: str, cost: int) -> None:
    text = encrypted(pkcs8(key), PASSWORD, kind=kind, cost=(cost, 8, 1))
    assert signs(load(text.encode(), PASSWORD.encode()))


@pytest.mark.parametrize("key", USABLE.values(), ids=USABLE)
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_keys_in_pkcs8(key: PrivateKeyTypes, password: str) -> None:
    assert signs(load(pem(key, password), password.encode()))


def test_openssls_older_form() -> None:
    assert signs(load(pem(P256, shape=PrivateFormat.TraditionalOpenSSL), b""))
    assert signs(load(pem(RSA, PASSWORD, PrivateFormat.TraditionalOpenSSL), PASSWORD.encode()))


def test_a_key_without_encryption_needs_no_password_and_minds_none() -> None:
    assert signs(load(pem(P256), b"of another key"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_break_that_came_with_the_file_is_not_the_password(end: bytes) -> None:
    for text in (ENCRYPTED, pem(P256, PASSWORD)):
        assert signs(load(text, PASSWORD.encode() + end))


def test_a_password_may_end_with_a_line_break() -> None:
    # As where it came to cosign through a pipe.
    assert signs(load(encrypted(pkcs8(P256), "piped\n").encode(), b"piped\n"))


def box(**changes: Any) -> bytes:
    """Return an encrypted key with something else in its JSON."""
    document = json.loads(base64.b64decode(b"".join(ENCRYPTED.splitlines()[1:-1])))
    return armoured(json.dumps({**document, **changes}).encode()).encode()


def kdf(**params: Any) -> dict[str, Any]:
    return {"kdf": {"name": "scrypt", "params": params, "salt": "AAAA"}}


@dataclass(frozen=True)
class Bad:
    key: bytes
    said: str
    password: bytes = PASSWORD.encode()


_PUBLIC = (REAL / "cosign.pub").read_bytes()
BAD = {
    "nothing": Bad(b"", "is not a private key in PEM"),
    "no PEM": Bad(b"AGE-SECRET-KEY-1", "is not a private key in PEM"),
    "bytes": Bad(bytes(range(256)), "is not a private key in PEM"),
    "the public key": Bad(_PUBLIC, "is not a private key in PEM"),
    "damaged PEM": Bad(pem(P256).replace(b"M", b"-", 3), "is not a private key in PEM"),
    "half of it": Bad((REAL / "cosign.key").read_bytes()[:300], "is not a private key in PEM"),
    "not JSON": Bad(armoured(b"\x00\x01").encode(), "damaged"),
    "nested deeply": Bad(armoured(b"[" * 100_000).encode(), "damaged"),
    "not base64": Bad(armoured(b"").replace("-----\n", "-----\nAAA=A\n", 1).encode(), "damaged"),
    "another KDF": Bad(box(kdf={"name": "argon2", "params": {}, "salt": ""}), "damaged"),
    "another cipher": Bad(box(cipher={"name": "none", "nonce": ""}), "damaged"),
    "no ciphertext": Bad(box(ciphertext=None), "damaged"),
    "salt that is no base64": Bad(box(kdf={"name": "scrypt", "params": {}, "salt": "A"}), "damaged"),
    "much memory": Bad(box(**kdf(N=2**40, r=8, p=1)), "does not use"),
    "no parameters": Bad(box(**kdf()), "does not use"),
    "short nonce": Bad(box(cipher={"name": "nacl/secretbox", "nonce": "AAAA"}), "is not the password"),
    "changed ciphertext": Bad(box(ciphertext="AAAA"), "is not the password"),
    "wrong password": Bad(ENCRYPTED, "`cosign.password` is not the password", b"guess"),
    "no password": Bad(ENCRYPTED, "has no `cosign.password`", b""),
    "wrong password, PKCS#8": Bad(pem(P256, PASSWORD), "`cosign.password` is not the password", b"guess"),
    "no password, PKCS#8": Bad(pem(P256, PASSWORD), "has no `cosign.password`", b""),
    "no key inside": Bad(encrypted(b"0\x00", PASSWORD).encode(), "not contain a private key in PKCS#8"),
    "P-384": Bad(pem(ec.generate_private_key(ec.SECP384R1())), "on the curve secp384r1: use P-256"),
    "a short RSA key": Bad(pem(rsa.generate_private_key(65537, 1024)), "of 1024 bits: use 2048 to 4096"),
    "DSA": Bad(pem(dsa.generate_private_key(2048)), "of an unsupported type"),
    "X25519": Bad(encrypted(pkcs8(x25519.X25519PrivateKey.generate()), PASSWORD).encode(), "of an unsupported type"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_does_not_sign_is_refused_without_telling_what_is_in_it(bad: Bad) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        load(bad.key, bad.password)
    message = str(caught.value)
    assert bad.said in message
    assert PASSWORD not in message
    assert "guess" not in message
    assert [line for line in bad.key.decode("latin-1").splitlines()[1:-1] if line and line in message] == []


def test_a_signature_of_another_key_is_none() -> None:
    one, other = (load(pair.key.encode(), pair.password.encode()) for pair in (key_pair(), key_pair()))
    assert not one.has_signed(PAYLOAD, other.sign(PAYLOAD))
    assert not one.has_signed(PAYLOAD, b"no signature")
    assert not load(pem(ED25519), b"").has_signed(PAYLOAD, b"short")
    assert not load(pem(RSA), b"").has_signed(PAYLOAD, b"short")


def test_a_key_is_never_shown() -> None:
    key = load((REAL / "cosign.key").read_bytes(), REAL_PASSWORD)
    assert str(key._private.private_numbers().private_value) not in repr(key)  # type: ignore[union-attr]


def test_steps_that_do_not_sign_do_not_load_the_libraries() -> None:
    modules = "multiarchbuild.steps.resolve, multiarchbuild.steps.build, multiarchbuild.steps.publish, sys"
    code = f"import {modules}; print([name for name in ('cryptography', 'nacl') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": OPERATOR}
    )
    assert done.stdout.strip() == "[]"
