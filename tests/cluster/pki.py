"""Keys and certificates of one cluster: made once, kept in its state directory."""

import base64
import ctypes
import ctypes.util
import datetime as dt
import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.errors import ClusterError
from tests.cluster.files import write_atomic

LIFETIME = dt.timedelta(days=3650)


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its key, both PEM."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in a directory; what it has issued once it returns again."""

    def __init__(self, directory: Path, name: str) -> None:
        """Loads the authority `name` from `directory`, or makes it."""
        self._directory = directory
        self.pair = self._pair(name)
        if not self.pair.cert.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"multiarchbuild cluster {name}")])
            usage = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            )  # fmt: skip
            cert = (
                _builder(subject, subject, key)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(usage, critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .sign(key, hashes.SHA256())
            )
            _store(self.pair, cert, key)
        self._cert = x509.load_pem_x509_certificate(self.pair.cert.read_bytes())
        loaded = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded

    def issue(self, name: str, *, common_name: str, organization: str = "", hosts: tuple[str, ...] = ()) -> Pair:
        """Returns the pair `name`, issued now unless it exists; good for client and, with `hosts`, server."""
        pair = self._pair(name)
        if pair.cert.exists():
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(x509.Name(attributes), self._cert.subject, key)
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # Python 3.13 and later refuse a certificate that does not name its authority's key (VERIFY_X509_STRICT).
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        _store(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._directory / f"{name}.crt", self._directory / f"{name}.key")


def signing_key(path: Path) -> Path:
    """Returns `path`, an EC private key (PEM) for service account tokens, made now unless it exists."""
    if not path.exists():
        write_atomic(path, _pem(ec.generate_private_key(ec.SECP256R1())), mode=0o600)
    return path


def password(path: Path) -> str:
    """Returns the random password kept in `path`, made now unless it exists."""
    if not path.exists():
        write_atomic(path, secrets.token_urlsafe(18).encode(), mode=0o600)
    return path.read_text()


def htpasswd_line(user: str, secret: str) -> str:
    """Returns a line for a htpasswd file with bcrypt, the only hash that distribution's registry accepts.

    Raises:
        ClusterError: where the C library's crypt(3) has no bcrypt.
    """
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    salt = "".join(secrets.choice(alphabet) for _ in range(21)) + "."
    hashed = crypt(secret, f"$2y$05${salt}")
    if not hashed.startswith("$2y$"):
        raise ClusterError("crypt(3) of this system has no bcrypt: install libxcrypt (Debian: libcrypt1)")
    return f"{user}:{hashed}\n"


def crypt(secret: str, setting: str) -> str:
    """Returns a password's hash by the C library, "" where that does not know the method of `setting`."""
    # The standard library dropped it in Python 3.13; the C library still has it.
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes | None = library.crypt(secret.encode(), setting.encode())
    return (hashed or b"").decode()


def kubeconfig(server: str, authority: Pair, user: Pair) -> bytes:
    """Returns a kubeconfig with all certificates inside, so that the file can be copied anywhere."""

    def data(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": server, "certificate-authority-data": data(authority.cert)}}
        ],
        "users": [
            {
                "name": "user",
                "user": {"client-certificate-data": data(user.cert), "client-key-data": data(user.key)},
            }
        ],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
        "current-context": "local",
    }
    return yaml.safe_dump(content, sort_keys=False).encode()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    assert isinstance(address, IPv4Address)
    return x509.IPAddress(address)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Not PKCS8: the API server takes a private key for a public one only in this form.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _store(pair: Pair, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The key first: a certificate on disk means that the pair is whole.
    write_atomic(pair.key, _pem(key), mode=0o600)
    write_atomic(pair.cert, cert.public_bytes(serialization.Encoding.PEM), mode=0o644)
