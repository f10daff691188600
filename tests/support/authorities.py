"""Sigstore's own Fulcio and timestamp authority, whose certificates and keys are made for a test."""

import base64
import datetime as dt
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.asn1 import encode_der
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PASSWORD = "correct horse"
_BEGIN = dt.timedelta(hours=1)
_LIFE = dt.timedelta(days=1)
_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certified:
    """A key, and the certificates that vouch for it, the root last."""

    key: _Key
    chain: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> str:
        """The chain."""
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in self.chain)


def root(name: str) -> Certified:
    """Return a new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Certified(key, (_builder(name, name, key, ca=True).sign(key, hashes.SHA256()),))


def issued(name: str, by: Certified, usage: x509.ObjectIdentifier, *, ca: bool = False) -> Certified:
    """Return what `by` certifies for one use."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, _common_name(by.chain[0]), key, ca=ca)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=not ca)
    return Certified(key, (builder.sign(by.key, hashes.SHA256()), *by.chain))


@dataclass(frozen=True)
class Authorities:
    """What a Fulcio and a timestamp authority have."""

    fulcio: Certified
    timestamps: Certified

    @classmethod
    def new(cls) -> "Authorities":
        """Return a CA with an intermediate one, as Fulcio has it, and a timestamp authority of another."""
        return cls(
            issued("fulcio", root("fulcio root"), ExtendedKeyUsageOID.CODE_SIGNING, ca=True),
            issued("timestamps", root("timestamps root"), ExtendedKeyUsageOID.TIME_STAMPING),
        )

    def files(self, config: dict[str, Any]) -> dict[str, str]:
        """Return the content of the files that `fulcio` and `timestamps` name; `config` is Fulcio's."""
        return {
            "config.yaml": yaml.safe_dump(config),
            "fulcio.pem": self.fulcio.pem,
            "fulcio.key": _pem(self.fulcio.key, BestAvailableEncryption(PASSWORD.encode())),
            "timestamps.pem": self.timestamps.pem,
            "timestamps.key": _pem(self.timestamps.key, NoEncryption()),
        }


def fulcio(folder: str, host: str, ports: tuple[int, int, int], socket: str) -> list[str]:
    """Return the arguments of Fulcio whose files are in `folder`; `ports` are for HTTP, gRPC and metrics."""
    files = {"config-path": "config.yaml", "fileca-cert": "fulcio.pem", "fileca-key": "fulcio.key"}
    flags = {name: f"{folder}/{file}" for name, file in files.items()}
    flags |= {"ca": "fileca", "fileca-key-passwd": PASSWORD, "fileca-watch": "false", "ct-log-url": ""}
    flags |= {"host": host, "grpc-host": "127.0.0.1", "legacy-unix-domain-socket": socket}
    flags |= dict(zip(("port", "grpc-port", "metrics-port"), map(str, ports), strict=True))
    return ["serve", *(f"--{name}={value}" for name, value in flags.items())]


def timestamps(folder: str, host: str, port: int) -> list[str]:
    """Return the arguments of the timestamp authority whose files are in `folder`."""
    files = (f"-certificate-chain-path={folder}/timestamps.pem", f"-file-signer-key-path={folder}/timestamps.key")
    return [*files, f"-host={host}", f"-port={port}"]


def configuration(issuer: str, audience: str = "sigstore") -> dict[str, Any]:
    """Return the configuration of a Fulcio that takes tokens of ServiceAccounts by `issuer`."""
    entry = {"issuer-url": issuer, "client-id": audience, "type": "kubernetes"}
    return {"oidc-issuers": {issuer: entry}}


@dataclass
class Issuer:
    """Who issues tokens of ServiceAccounts, as an API server does: it serves the keys that verify them."""

    url: str = ""
    key: _Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def token(self, namespace: str, account: str, audience: str = "sigstore") -> str:
        """Return a token of a ServiceAccount."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}},
        }
        signed = ".".join(_url64(json.dumps(each).encode()) for each in ({"alg": "ES256", "kid": "1"}, claims))
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_url64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the keys until the block ends."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(issuer._keys() if self.path == "/keys" else issuer._discovery()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ExitStack() as stack:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            yield

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def _keys(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        point = {name: _url64(getattr(numbers, name).to_bytes(32, "big")) for name in ("x", "y")}
        return {"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", **point}]}


def save(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder."""
    for name, text in files.items():
        (folder / name).write_text(text)


def _builder(name: str, issuer: str, key: _Key, *, ca: bool) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage |= {"decipher_only": False, "digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEGIN)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    (found,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)


def _pem(key: _Key, encryption: BestAvailableEncryption | NoEncryption) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def timestamp(by: Certified, message: bytes, when: dt.datetime, nonce: int | None = None) -> bytes:
    """Return what the timestamp authority `by` answers about `message` at the time `when` (TimeStampResp, DER)."""
    sha256 = _der(0x30, _oid("2.16.840.1.101.3.4.2.1"))
    kind, imprint = _oid("1.2.840.113549.1.9.16.1.4"), _der(0x30, sha256, _der(4, _sha256(message)))
    moment = _der(0x18, f"{when.astimezone(dt.UTC):%Y%m%d%H%M%SZ}".encode())
    parts = (encode_der(1), _oid("1.2.3"), imprint, encode_der(1), moment)
    content = _der(0x30, *parts, b"" if nonce is None else encode_der(nonce))
    told = ("1.2.840.113549.1.9.3", kind), ("1.2.840.113549.1.9.4", _der(4, _sha256(content)))
    attributes = b"".join(_der(0x30, _oid(name), _der(0x31, value)) for name, value in told)
    certificate = by.chain[0]
    signer = _der(
        0x30,
        encode_der(1),
        _der(0x30, certificate.issuer.public_bytes(), encode_der(certificate.serial_number)),
        sha256,
        _der(0xA0, attributes),
        _der(0x30, _oid("1.2.840.10045.4.3.2")),
        _der(4, by.key.sign(_der(0x31, attributes), ec.ECDSA(hashes.SHA256()))),
    )
    signed = _der(
        0x30,
        encode_der(3),
        _der(0x31, sha256),
        _der(0x30, kind, _der(0xA0, _der(4, content))),
        _der(0xA0, certificate.public_bytes(Encoding.DER)),
        _der(0x31, signer),
    )
    token = _der(0x30, _oid("1.2.840.113549.1.7.2"), _der(0xA0, signed))
    return _der(0x30, _der(0x30, encode_der(0)), token)


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content


def _oid(dotted: str) -> bytes:
    return encode_der(x509.ObjectIdentifier(dotted))


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
