"""Keys as cosign makes them, and openssl, which knows nothing of this project, to verify what they have signed."""

import base64
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.secret import SecretBox
from nacl.utils import random

PASSWORD = "correct horse"


@dataclass(frozen=True)
class KeyPair:
    """What `cosign generate-key-pair` makes."""

    key: str
    public: str
    password: str = PASSWORD

    def secret(self) -> dict[str, str]:
        """Return the content of the Secret that `cosign generate-key-pair k8s://…` makes."""
        return {"cosign.key": self.key, "cosign.password": self.password, "cosign.pub": self.public}

    def verifies(self, layer: Mapping[str, Any], payload: bytes) -> bool:
        """Return what openssl says of a layer of a signature manifest, whose content is `payload`."""
        assert layer["digest"] == f"sha256:{hashlib.sha256(payload).hexdigest()}"
        signature = base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
        return openssl_verifies(self.public, payload, signature)


def openssl_verifies(public: str, payload: bytes, signature: bytes) -> bool:
    """Return whether openssl takes `signature` for one of `payload` by the key whose public one is `public` (PEM)."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"payload": payload, "signature": signature, "cosign.pub": public.encode()}
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        command = ["openssl", "dgst", "-sha256", "-verify", "cosign.pub", "-signature", "signature", "payload"]
        return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def key_pair() -> KeyPair:
    """Return a new pair on P-256, as cosign makes it by default."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(encrypted(pkcs8(private), PASSWORD), public.decode())


def pkcs8(private: PrivateKeyTypes) -> bytes:
    """Return a private key as cosign encrypts it."""
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def encrypted(
    plain: bytes, password: str, *, kind: str = "SIGSTORE", cost: tuple[int, int, int] = (2**15, 8, 1)
) -> str:
    """Return what cosign writes into `cosign.key` (go-securesystemslib/encrypted)."""
    n, r, p = cost
    salt, nonce = random(32), random(SecretBox.NONCE_SIZE)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=2**28, dklen=32)
    ciphertext = SecretBox(derived).encrypt(plain, nonce).ciphertext
    document = {
        "kdf": {"name": "scrypt", "params": {"N": n, "r": r, "p": p}, "salt": _base64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _base64(nonce)},
        "ciphertext": _base64(ciphertext),
    }
    return armoured(json.dumps(document).encode(), kind)


def armoured(content: bytes, kind: str = "SIGSTORE") -> str:
    """Return PEM around the content of an encrypted key."""
    text, label = _base64(content), f"ENCRYPTED {kind} PRIVATE KEY"
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def claims(payload: bytes) -> tuple[str, str]:
    """Return repository and digest that a payload speaks of."""
    critical = json.loads(payload)["critical"]
    assert critical["type"] == "cosign container image signature"
    return critical["identity"]["docker-reference"], critical["image"]["docker-manifest-digest"]


def verified(
    manifest: Mapping[str, Any], blob: Callable[[str], bytes], pairs: Mapping[str, KeyPair], image: str, digest: str
) -> list[str]:
    """Return whose signature each layer of a signature manifest is; all must be of `image` and `digest`."""
    names = []
    for layer in manifest["layers"]:
        payload = blob(layer["digest"])
        assert claims(payload) == (image, digest)
        names += [name for name, pair in pairs.items() if pair.verifies(layer, payload)] or ["nobody"]
    return names


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
