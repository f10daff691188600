"""Private keys that sign images: cosign's own format, and PKCS#8.

Only what signs imports this module: the libraries behind it cost each other step's start a tenth of a second.

Sources: https://github.com/secure-systems-lab/go-securesystemslib/blob/v0.11.0/encrypted/encrypted.go,
https://github.com/sigstore/cosign/blob/v3.1.2/pkg/cosign/keys.go and
https://github.com/sigstore/cosign/blob/v3.1.2/specs/SIGNATURE_SPEC.md ("Signature Schemes")
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from pydantic import Base64Bytes, BaseModel, ValidationError

from .signature import Signature

_COSIGN = re.compile(rb"-----BEGIN (ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----")
_SCRYPT = {(2**15, 8, 1), (2**16, 8, 1), (2**17, 8, 1)}
"""What cosign has ever written; anything else could demand any amount of memory."""
_SCRYPT_MEMORY = 256 * 1024 * 1024
_RSA_BITS = range(2048, 4097)

_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class InvalidKeyError(Exception):
    """A key that cannot be used: what is wrong with it, and never what is in it."""


class _Kdf(BaseModel):
    name: Literal["scrypt"]
    params: dict[str, int]
    salt: Base64Bytes

    @property
    def cost(self) -> tuple[int, int, int]:
        return self.params.get("N", 0), self.params.get("r", 0), self.params.get("p", 0)


class _Cipher(BaseModel):
    name: Literal["nacl/secretbox"]
    nonce: Base64Bytes


class _Encrypted(BaseModel):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: Base64Bytes


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs as `cosign verify --key` expects it of the public one."""

    _private: _Private

    @property
    def hint(self) -> str:
        """What tells the public key from others: the SHA-256 of its SubjectPublicKeyInfo, in base64."""
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        public = self._private.public_key().public_bytes(encoding, form)
        return base64.b64encode(hashlib.sha256(public).digest()).decode()

    @property
    def signed_by(self) -> None:
        """Nobody: whose key it is, verifiers know."""
        return None

    def signature(self, payload: bytes) -> Signature:
        """Return a signature of `payload`."""
        return Signature(self.sign(payload), hint=self.hint)

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        """Return whether `signature` is one of `payload` by this key."""
        return self.has_signed(payload, signature.value)

    def sign(self, payload: bytes) -> bytes:
        """Return a signature of `payload`: ECDSA and RSA (PKCS#1 v1.5) over its SHA-256, Ed25519 over itself."""
        match self._private:
            case ec.EllipticCurvePrivateKey():
                return self._private.sign(payload, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self._private.sign(payload, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return self._private.sign(payload)

    def has_signed(self, payload: bytes, signature: bytes) -> bool:
        """Return whether `signature` is one of `payload` by this key."""
        public = self._private.public_key()
        try:
            match public:
                case ec.EllipticCurvePublicKey():
                    public.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
                case rsa.RSAPublicKey():
                    public.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
                case _:
                    public.verify(signature, payload)
        except InvalidSignature:
            return False
        return True


def load(pem: bytes, password: bytes) -> SigningKey:
    """Return the key in `pem`.

    A password that ends with a line break is tried without it too: it comes from `--from-file`.

    Raises:
        InvalidKeyError: it is none, of a kind that nobody verifies, or the password is not its own.
    """
    found = _COSIGN.search(pem)
    passwords = dict.fromkeys((password, password.rstrip(b"\r\n")))
    if found:
        box = _parse(found[2])
        plain = next(filter(None, (_open(box, each) for each in passwords)), None)
        if plain is None:
            raise _wrong_password(password)
        return SigningKey(_usable(_der(plain)))
    return SigningKey(_usable(_pem(pem, [*passwords])))


def _parse(base64_text: bytes) -> _Encrypted:
    try:
        box = _Encrypted.model_validate_json(base64.b64decode(b"".join(base64_text.split()), validate=True))
    except (binascii.Error, ValidationError) as error:
        raise InvalidKeyError("`cosign.key` is damaged: it does not have the format of a cosign key") from error
    if box.kdf.cost not in _SCRYPT:
        raise InvalidKeyError("`cosign.key` is encrypted with parameters of scrypt that cosign does not use")
    return box


def _open(box: _Encrypted, password: bytes) -> bytes | None:
    n, r, p = box.kdf.cost
    key = hashlib.scrypt(password, salt=box.kdf.salt, n=n, r=r, p=p, maxmem=_SCRYPT_MEMORY, dklen=SecretBox.KEY_SIZE)
    try:
        return SecretBox(key).decrypt(box.ciphertext, box.cipher.nonce)
    except (CryptoError, ValueError):
        return None


def _der(plain: bytes) -> object:
    try:
        return serialization.load_der_private_key(plain, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKeyError("`cosign.key` does not contain a private key in PKCS#8") from error


def _pem(pem: bytes, passwords: list[bytes]) -> object:
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError:
        pass  # it is encrypted
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKeyError(
            "`cosign.key` is not a private key in PEM: use what `cosign generate-key-pair` makes, or PKCS#8"
        ) from error
    for password in filter(None, passwords):
        try:
            return serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
    raise _wrong_password(passwords[0])


def _wrong_password(password: bytes) -> InvalidKeyError:
    if password:
        return InvalidKeyError("`cosign.password` is not the password of `cosign.key`")
    return InvalidKeyError("`cosign.key` is encrypted, but the Secret has no `cosign.password`")


def _usable(key: object) -> _Private:
    match key:
        case ec.EllipticCurvePrivateKey():
            if isinstance(key.curve, ec.SECP256R1):
                return key
            # Of other curves some verifiers take the SHA-256 and some the digest of the curve's size.
            raise InvalidKeyError(f"`cosign.key` is on the curve {key.curve.name}: use P-256")
        case ed25519.Ed25519PrivateKey():
            return key
        case rsa.RSAPrivateKey():
            if key.key_size in _RSA_BITS:
                return key
            raise InvalidKeyError(f"`cosign.key` is an RSA key of {key.key_size} bits: use 2048 to 4096")
        case _:
            raise InvalidKeyError("`cosign.key` is of an unsupported type: use ECDSA P-256, Ed25519 or RSA")
