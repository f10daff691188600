"""Signatures of what the cluster does not sign: the chart's manifest and the list of checksums."""

import base64
from dataclasses import dataclass
from pathlib import Path

from multiarchbuild.cli.docker import Logins
from multiarchbuild.cli.registry import client
from multiarchbuild.oci import keys, signed
from multiarchbuild.oci.errors import RegistryError

from .errors import ReleaseError


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key as cosign makes it, or in PKCS#8."""

    path: Path
    password: str
    key: keys.SigningKey

    @classmethod
    def load(cls, path: Path, password: str) -> "Signer":
        """Return the key in a file.

        Raises:
            ReleaseError: it cannot be used.
        """
        try:
            return cls(path, password, keys.load(path.read_bytes(), password.encode()))
        except OSError as error:
            raise ReleaseError(f"cannot read SIGNING_KEY={path}: {error.strerror}") from error
        except keys.InvalidKeyError as error:
            raise ReleaseError(f"SIGNING_KEY={path}: {error} (the password is $COSIGN_PASSWORD)") from error

    def sign_manifest(self, repository: str, digest: str, *, plain_http: bool) -> None:
        """Sign a manifest in a registry, in the forms of cosign 2 and cosign 3.

        Raises:
            ReleaseError: the registry refuses it.
        """
        registry = client(repository, Logins.load(), plain_http=plain_http)
        try:
            subject = registry.get(digest)
            descriptor = {"mediaType": subject.media_type, "digest": digest, "size": len(subject.raw)}
            signed.sign(registry, descriptor, self.key)
        except RegistryError as error:
            raise ReleaseError(f"{repository}@{digest} was not signed: {error}") from error

    def sign_file(self, path: Path) -> Path:
        """Write the signature of a file beside it, as `cosign sign-blob` does; return its path."""
        signature = path.with_name(f"{path.name}.sig")
        signature.write_bytes(base64.b64encode(self.key.sign(path.read_bytes())))
        return signature
