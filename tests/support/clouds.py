"""Stand-ins for what Google Cloud and Azure exchange, and a registry that takes what they hand out.

They follow the documented requests: https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token,
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken,
https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys,
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md. The registry behind is a real one. AWS is played by moto.
"""

import base64
import datetime as dt
import http.client
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.bodies import body_of

POOL = "projects/42/locations/global/workloadIdentityPools/clusters/providers/test"
ACCOUNT = "builds@project.iam.gserviceaccount.com"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
SCOPE = "https://registry.azure.test/.default"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS = "urn:ietf:params:oauth:token-type:access_token"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_CLOUD = "https://www.googleapis.com/auth/cloud-platform"
_PASSED = {"content-type", "content-length", "location", "range", "docker-content-digest", "docker-upload-uuid"} | {
    "etag",
    "oci-subject",
}


@dataclass
class Cloud:
    """Google's and Azure's servers, and their registry, at one address."""

    upstream: str
    """Host and port of a real registry without a login."""
    trusted: Callable[[str, str], bool]
    """Whether a token of a ServiceAccount is good for an audience."""
    host: str = ""
    """Host and port by which builds know the registry."""
    seconds: int = 3600
    """How long a login is good for."""
    logins: dict[str, float] = field(default_factory=dict)
    """When each login expires, by its password."""
    asked: list[str] = field(default_factory=list)
    """What was exchanged, in order."""
    fault: tuple[int, Mapping[str, Any]] | None = None
    """What every exchange is answered with instead."""
    address: str = ""
    _federated: set[str] = field(default_factory=set)
    _entra: set[str] = field(default_factory=set)
    _tokens: dict[str, float] = field(default_factory=dict)

    def policy(self, url: str) -> dict[str, Any]:
        """Return `identities` of a policy in which the servers are at `url`."""
        google = {"sts": url, "iamCredentials": url, "metadata": url, "registries": [self.host]}
        return {"google": google, "azure": {"authority": url, "scope": SCOPE, "registries": [self.host]}}

    @contextmanager
    def serving(self, interface: str = "127.0.0.1") -> Iterator[None]:
        """Serve until the block ends."""
        with ThreadingHTTPServer((interface, 0), self._handler()) as server:
            self.address = f"{interface}:{server.server_port}"
            self.host = self.host or self.address
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield
            server.shutdown()

    def exchange(self, method: str, path: str, headers: Message, body: str) -> tuple[int, Mapping[str, Any]]:
        """Answer a request for an exchange."""
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if self.fault:
            return self.fault
        match method, path:
            case "POST", "/v1/token":
                return self._google_sts(form)
            case "POST", _ if path.endswith(":generateAccessToken"):
                return self._google_account(path, headers, body)
            case "GET", "/computeMetadata/v1/instance/service-accounts/default/token":
                if headers.get("Metadata-Flavor") != "Google":
                    return 403, {"error": "missing Metadata-Flavor"}
                self.asked.append("google metadata")
                return 200, {"access_token": self._login(), "expires_in": self.seconds, "token_type": "Bearer"}
            case "POST", _ if path == f"/{TENANT}/oauth2/v2.0/token":
                return self._entra_token(form)
            case "POST", "/oauth2/exchange":
                return self._acr(form)
        return 404, {"error": f"nothing at {method} {path}"}

    def _google_sts(self, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        expected = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": f"//iam.googleapis.com/{POOL}",
            "scope": _CLOUD,
            "requested_token_type": _ACCESS,
            "subject_token_type": _JWT,
        }
        if {name: form.get(name) for name in expected} != expected:
            return 400, {"error": "invalid_request", "error_description": "Invalid value"}
        if not self.trusted(form.get("subject_token", ""), f"https://iam.googleapis.com/{POOL}"):
            return 400, {"error": "invalid_grant", "error_description": "The audience in ID Token does not match"}
        self.asked.append("google sts")
        token = self._login()
        self._federated.add(token)
        return 200, {
            "access_token": token,
            "issued_token_type": _ACCESS,
            "token_type": "Bearer",
            "expires_in": self.seconds,
        }

    def _google_account(self, path: str, headers: Message, body: str) -> tuple[int, Mapping[str, Any]]:
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self._federated:
            return 401, {"error": {"code": 401, "message": "Request had invalid credentials", "status": "DENIED"}}
        asked = json.loads(body)
        if path != f"/v1/projects/-/serviceAccounts/{ACCOUNT.replace('@', '%40')}:generateAccessToken":
            message = "Permission 'iam.serviceAccounts.getAccessToken' denied"
            return 403, {"error": {"code": 403, "message": message, "status": "PERMISSION_DENIED"}}
        if asked["scope"] != [_CLOUD] or not re.fullmatch(r"\d+s", asked["lifetime"]):
            return 400, {"error": {"code": 400, "message": "Invalid JSON payload", "status": "INVALID_ARGUMENT"}}
        self.asked.append("google account")
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.seconds)
        return 200, {"accessToken": self._login(), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _entra_token(self, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        expected = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "scope": SCOPE,
            "client_assertion_type": _ASSERTION,
        }
        if {name: form.get(name) for name in expected} != expected:
            return 400, {"error": "invalid_request", "error_description": "AADSTS900144"}
        if not self.trusted(form.get("client_assertion", ""), "api://AzureADTokenExchange"):
            return 401, {"error": "invalid_client", "error_description": "AADSTS700212: No matching federated identity"}
        self.asked.append("azure entra")
        token = secrets.token_hex(20)
        self._entra.add(token)
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token}

    def _acr(self, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        expected = {"grant_type": "access_token", "service": self.host, "tenant": TENANT}
        if {name: form.get(name) for name in expected} != expected or form.get("access_token") not in self._entra:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        self.asked.append("azure exchange")
        claims = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + self.seconds}).encode()).decode()
        token = f"eyJhbGciOiJub25lIn0.{claims.rstrip('=')}.{secrets.token_hex(8)}"
        self.logins[token] = time.time() + self.seconds
        return 200, {"refresh_token": token}

    def _login(self) -> str:
        token = f"ya29.{secrets.token_hex(20)}"
        self.logins[token] = time.time() + self.seconds
        return token

    def _token(self, headers: Message) -> tuple[int, Mapping[str, Any]]:
        """Hand out a token of the registry, good for as long as the login at most."""
        given = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()
        user, _, password = given.partition(":")
        expires = self.logins.get(password, 0.0)
        if user not in {"oauth2accesstoken", "00000000-0000-0000-0000-000000000000"} or expires < time.time():
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "the login is unknown or expired"}]}
        token = secrets.token_hex(20)
        self._tokens[token] = time.time() + min(self.seconds, 60)
        return 200, {"token": token, "expires_in": min(self.seconds, 60)}

    def _may(self, headers: Message) -> bool:
        return self._tokens.get(headers.get("Authorization", "").removeprefix("Bearer "), 0.0) > time.time()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body, path = body_of(self), urlsplit(self.path).path
                if not path.startswith("/v2/"):
                    asks_token = path == "/oauth2/token" and self.command == "GET"
                    status, document = (
                        cloud._token(self.headers)
                        if asks_token
                        else cloud.exchange(self.command, path, self.headers, body.decode())
                    )
                    self._send(status, {}, json.dumps(document).encode())
                elif cloud._may(self.headers):
                    self._forward(body)
                else:
                    name = "/".join(path.split("/")[2:-2]) or "catalog"
                    realm = f'realm="http://{cloud.host}/oauth2/token",service="{cloud.host}"'
                    challenge = f'Bearer {realm},scope="repository:{name}:pull,push"'
                    self._send(401, {"WWW-Authenticate": challenge}, b'{"errors": [{"code": "UNAUTHORIZED"}]}')

            def _forward(self, body: bytes) -> None:
                connection = http.client.HTTPConnection(cloud.upstream)
                sent = {
                    name: self.headers[name] for name in ("Accept", "Content-Type", "Range") if name in self.headers
                }
                # The registry behind makes the URLs of uploads by this.
                sent |= {"Host": cloud.host, "Content-Length": str(len(body))}
                connection.request(self.command, self.path, body=body or None, headers=sent)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                kept = {name: value for name, value in answer.getheaders() if name.lower() in _PASSED}
                self._send(answer.status, kept, content)

            def _send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
                self.send_response(status)
                if self.close_connection:
                    self.send_header("Connection", "close")
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        return Handler
