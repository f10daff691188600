"""A token server for a real registry: each login may use some repositories only.

Source: https://distribution.github.io/distribution/spec/auth/jwt/ and …/token/; distribution verifies the tokens.
"""

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.cluster import pki

ISSUER, SERVICE = "tokens", "registry"


@dataclass
class TokenServer:
    """Gives tokens to those who log in, for what their login may use."""

    authority: pki.Authority
    pair: pki.Pair
    """Certificate and key of the server, which sign the tokens too."""
    logins: dict[tuple[str, str], str] = field(default_factory=dict)
    """Beginning of the repositories by user and password."""
    public: str = "public/"
    """Beginning of the repositories that anybody may pull."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """User and scope of each token that was asked for; no user for everybody."""
    seconds: int = 300
    address: str = ""

    def auth(self, realm: str) -> dict[str, Any]:
        """Return the part `auth` of the configuration of distribution."""
        return {
            "token": {
                "realm": realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.authority.pair.cert),
            }
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair.cert, self.pair.key)
        with ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            self.address = f"127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield
            server.shutdown()

    def _token(self, user: str, allowed: str | None, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            wanted = actions.split(",")
            if allowed is not None and name.startswith(allowed):
                access.append({"type": kind, "name": name, "actions": wanted})
            elif name.startswith(self.public) and "pull" in wanted:
                access.append({"type": kind, "name": name, "actions": ["pull"]})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + self.seconds, "nbf": now - 10, "iat": now}
        return self._signed({**claims, "jti": uuid.uuid4().hex, "access": access})

    def _signed(self, claims: Mapping[str, Any]) -> str:
        certificate = x509.load_pem_x509_certificate(self.pair.cert.read_bytes())
        der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [der]}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scopes = [
                    each for text in parse_qs(urlsplit(self.path).query).get("scope", []) for each in text.split()
                ]
                given = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
                user, _, password = given.partition(":")
                tokens.asked += [(user, scope) for scope in scopes]
                allowed = tokens.logins.get((user, password))
                if user and allowed is None:
                    self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]})
                    return
                token = tokens._token(user, allowed, scopes)
                self._answer(200, {"token": token, "expires_in": tokens.seconds})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(404, {})

            def _answer(self, status: int, document: Mapping[str, Any]) -> None:
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
