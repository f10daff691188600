"""Tokens of registries for buildctl, with the login of each repository.

BuildKit knows one login for a registry, and a docker config file has one for each project of it. But it asks for a
token for each repository, by way of buildctl, which looks for the token server through the proxy of its environment.
So that proxy is this relay: it takes the place of the token server, finds the login of the repository that the token is
for, and asks the server itself. No login reaches buildctl or buildkitd, only a placeholder that names the registry.

It listens on loopback, which the RUNs of a build may share. What they could ask without the secret in a placeholder is
what they may ask the token server themselves; the secret is sent within TLS only, or where logins are not either.
"""

import base64
import datetime as dt
import hmac
import json
import secrets
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

from multiarchbuild.oci.auth import Token, fetch_token
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.errors import DeniedError, RegistryError
from multiarchbuild.oci.http import cause
from multiarchbuild.oci.names import Repository

from .errors import StepError
from .log import say

if TYPE_CHECKING:
    import urllib3
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_PLACEHOLDER = "multiarchbuild-relay"
_QUESTION = frozenset({"service", "scope", "account", "client_id", "offline_token"})
"""Parameters that a GET for a token adds to the realm."""
_MAX_BODY = 64 * 1024
_LIFE = dt.timedelta(days=2)
"""Longer than any build: the certificates are made for one."""


@dataclass(frozen=True, slots=True)
class Registries:
    """How the relay finds logins and reaches token servers."""

    find: Callable[[Repository], Credentials | None]
    pool: Callable[[str], "urllib3.PoolManager"]
    """Connections that trust what a registry's host is to be trusted by."""
    is_plain: Callable[[str], bool]
    """Whether a registry is spoken to without TLS."""


@dataclass(slots=True)
class Relay:
    """Answers buildctl's requests for tokens while it is entered."""

    registries: Registries
    folder: Path
    """Where its certificate is written."""
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _port: int = 0

    def placeholder(self, registry: str) -> Credentials:
        """Return what buildctl is given for the login of a registry."""
        return Credentials(_PLACEHOLDER, f"{self._secret} {registry}")

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which buildctl asks here."""
        url = f"http://127.0.0.1:{self._port}"
        proxies = {name: url for each in ("HTTP_PROXY", "HTTPS_PROXY") for name in (each, each.lower())}
        return {**proxies, "NO_PROXY": "", "no_proxy": "", "SSL_CERT_FILE": str(self._certificate)}

    @property
    def _certificate(self) -> Path:
        return self.folder / "relay.crt"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        authority = _Authority.create()
        self._certificate.write_bytes(authority.pem)
        with _Server(("127.0.0.1", 0), _Handler) as server:
            server.relay, server.authority, server.folder = self, authority, self.folder
            self._port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield
            finally:
                server.shutdown()

    def token(self, realm: str, service: str, scopes: Sequence[str], login: Credentials | None) -> Token:
        """Return a token for `scopes`; `login` is what buildctl would send, a placeholder or a real one.

        Raises:
            DeniedError: the placeholder is not ours.
            RegistryError, HTTPError, StepError: see `fetch_token` and `Registries.find`.
        """
        registry = urlsplit(realm).netloc
        if login and login.username == _PLACEHOLDER:
            secret, _, registry = login.password.partition(" ")
            if not hmac.compare_digest(secret.encode(), self._secret.encode()):
                raise DeniedError("this build has not asked for the token")
            login, scopes = self._choose(registry, scopes)
        plain = self.registries.is_plain(registry)
        return fetch_token(self.registries.pool(registry), login, realm, service, scopes, plain_http=plain)

    def _choose(self, registry: str, scopes: Sequence[str]) -> tuple[Credentials | None, Sequence[str]]:
        """Return the login for what is pushed, or else pulled first, and those of `scopes` that have the same one.

        Others are of repositories that blobs may be mounted from: without them the blobs are sent.
        """
        logins = {scope: self.registries.find(_repository(registry, scope)) for scope in scopes}
        if not logins:
            return None, scopes
        first = next((scope for scope in scopes if "push" in scope.rpartition(":")[2].split(",")), scopes[0])
        return logins[first], [scope for scope in scopes if logins[scope] == logins[first]]


def _repository(registry: str, scope: str) -> Repository:
    """Return what a scope, such as `repository:team/app:pull`, is about."""
    return Repository(registry, scope.partition(":")[2].rpartition(":")[0])


@dataclass(frozen=True)
class _Authority:
    """Certificates that one buildctl trusts for the length of one build."""

    key: "EllipticCurvePrivateKey"
    certificate: "x509.Certificate"

    @classmethod
    def create(cls) -> "_Authority":
        # Not at the top: most builds have one login a registry and do without all of this.
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "multiarchbuild step")])
        return cls(key, _certificate(key, name, name, [(x509.BasicConstraints(ca=True, path_length=0), True)]))

    @property
    def pem(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

        return self.certificate.public_bytes(Encoding.PEM)

    def context(self, host: str, folder: Path) -> ssl.SSLContext:
        """Return what a server needs to be `host`."""
        from ipaddress import ip_address  # noqa: PLC0415

        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        try:
            name: x509.GeneralName = x509.IPAddress(ip_address(host.strip("[]")))
        except ValueError:
            name = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host[:64])])
        extension = (x509.SubjectAlternativeName([name]), False)
        own = _certificate(self.key, self.certificate.subject, subject, [extension])
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = folder / f"relay-{secrets.token_hex(8)}.pem"
        file.touch(mode=0o600)
        file.write_bytes(key + own.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(file)
        finally:
            file.unlink()
        return context


def _certificate(
    key: "EllipticCurvePrivateKey",
    issuer: "x509.Name",
    subject: "x509.Name",
    extensions: "list[tuple[x509.ExtensionType, bool]]",
) -> "x509.Certificate":
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    relay: Relay
    authority: _Authority
    folder: Path

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as socketserver has it
        """Say in the log that a connection has failed, instead of how."""
        say(f"a request for a token failed: {sys.exception()}")


class _Handler(BaseHTTPRequestHandler):
    """A proxy that lets nothing through: what is asked within a tunnel is answered here."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    tunnel = ""

    def do_CONNECT(self) -> None:
        server = cast("_Server", self.server)
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        host, _, port = self.path.rpartition(":")
        self.tunnel = f"https://{host}" if port == "443" else f"https://{self.path}"
        context = server.authority.context(host, server.folder)
        self.connection = self.request = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.close_connection = False

    def do_GET(self) -> None:
        self._answer(urlsplit(self._url).query)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 <= size <= _MAX_BODY:
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {})
            return
        self._answer(self.rfile.read(size).decode())

    @property
    def _url(self) -> str:
        return f"{self.tunnel}{self.path}" if self.tunnel else self.path

    def _answer(self, query: str) -> None:
        asked = parse_qs(query)
        realm = self._url if self.command == "POST" else _without_question(self._url)
        scopes = [scope for each in asked.get("scope", []) for scope in each.split()]
        service = next(iter(asked.get("service", [])), "")
        try:
            token = cast("_Server", self.server).relay.token(realm, service, scopes, _login(self.headers, asked))
        except DeniedError as error:
            self._refuse(HTTPStatus.FORBIDDEN, "DENIED", str(error))
        except StepError as error:
            again = error.reason.retryable
            status = HTTPStatus.BAD_GATEWAY if again else HTTPStatus.FORBIDDEN
            self._refuse(status, "UNAVAILABLE" if again else "DENIED", error.message)
        except RegistryError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, "UNAVAILABLE", str(error))
        except HTTPError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, "UNAVAILABLE", f"{realm} cannot be reached: {cause(error)}")
        else:
            # Under both names: that of the OAuth request is another.
            answer = {"token": token.value, "access_token": token.value, "expires_in": token.seconds}
            self._send(HTTPStatus.OK, answer)

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        self._send(status, {"errors": [{"code": code, "message": message}]})

    def _send(self, status: HTTPStatus, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _without_question(url: str) -> str:
    """Return the realm in the URL of a GET: a realm may have parameters of its own."""
    parts = urlsplit(url)
    own = [(name, value) for name, value in parse_qsl(parts.query) if name not in _QUESTION]
    return urlunsplit(parts._replace(query=urlencode(own)))


def _login(headers: Message, form: dict[str, list[str]]) -> Credentials | None:
    """Return what a request logs in with: HTTP basic (a GET), or a form of OAuth (a POST)."""

    def first(name: str) -> str:
        return next(iter(form.get(name, [])), "")

    if first("grant_type") == "refresh_token":
        return Credentials(identity_token=first("refresh_token"))
    if first("grant_type") == "password":
        return Credentials(first("username"), first("password"))
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    user, _, password = base64.b64decode(value).decode(errors="surrogateescape").partition(":")
    return Credentials(user, password)
