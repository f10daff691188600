"""The distribution API of one repository: manifests in raw bytes, and whether these credentials may push."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from .auth import Authenticator
from .credentials import Credentials
from .errors import DeniedError, NotFoundError, RefusedError, RegistryError, UnreachableError
from .http import Answer, TooLargeError, ask, cause, same_origin
from .index import MEDIA_TYPES, Manifest, digest_of
from .names import Repository

_CHUNK = 256 * 1024
_RETRY = urllib3.Retry(
    total=6,
    connect=2,
    read=2,
    redirect=5,
    status=5,
    other=1,  # such as a certificate that nobody here trusts
    # Every request here can be repeated: an upload that was begun twice is cancelled or expires.
    allowed_methods=None,
    status_forcelist=(429, 500, 502, 503, 504),
    backoff_factor=0.5,
    backoff_max=10,
    retry_after_max=60,
    raise_on_status=False,
)


def pool(ca_file: str | None, *, connect: float = 5, read: float = 30) -> urllib3.PoolManager:
    """Return the connections that clients share; time limits are in seconds."""
    return urllib3.PoolManager(retries=_RETRY, timeout=urllib3.Timeout(connect=connect, read=read), ca_certs=ca_file)


@dataclass(slots=True)
class Client:
    """Talks to one repository. Every method raises RegistryError."""

    repository: Repository
    http: urllib3.PoolManager
    credentials: Credentials | None = None
    plain_http: bool = False
    _auth: Authenticator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._auth = Authenticator(self.http, self.credentials, self.plain_http)

    def get(self, digest: str) -> Manifest:
        """Return the manifest or index with this digest, its bytes checked against it."""
        response = self._request("GET", self._manifest_url(digest), headers={"Accept": ", ".join(MEDIA_TYPES)})
        manifest = Manifest(response.headers.get("Content-Type", "").partition(";")[0], response.body)
        if manifest.digest != digest:
            raise RefusedError(f"{self.repository.registry} sent other bytes than {self.repository}@{digest}")
        return manifest

    def resolve(self, reference: str) -> Manifest:
        """Return the manifest or index that a tag or a digest names."""
        if reference.startswith("sha256:"):
            return self.get(reference)
        response = self._request("GET", self._manifest_url(reference), headers={"Accept": ", ".join(MEDIA_TYPES)})
        return Manifest(response.headers.get("Content-Type", "").partition(";")[0], response.body)

    def blob(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes of a blob of a manifest that was read before; whoever reads them compares their digest."""
        url = self._url(f"blobs/{digest}")
        try:
            response = self.http.request("GET", url, headers=self._auth.headers, preload_content=False)
            if response.status != HTTPStatus.OK:
                response.close()
                raise self._failure("GET", Answer(response.status, response.reason or "", response.headers, b"", url))
            yield from response.stream(_CHUNK, decode_content=False)
        except HTTPError as error:
            raise self._without_answer(error) from error

    def small_blob(self, digest: str) -> bytes:
        """Return a blob of at most 4 MiB, its bytes checked against `digest`."""
        body = self._request("GET", self._url(f"blobs/{digest}")).body
        if digest_of(body) != digest:
            raise RefusedError(f"{self.repository.registry} sent other bytes than the blob {digest}")
        return body

    def exists(self, digest: str) -> bool:
        """Return whether the repository has the manifest or index with this digest."""
        headers = {"Accept": ", ".join(MEDIA_TYPES)}
        try:
            response = self._request("HEAD", self._manifest_url(digest), headers=headers)
        except NotFoundError:
            return False
        return response.headers.get("Docker-Content-Digest", digest) == digest

    def put(self, manifest: Manifest, reference: str) -> None:
        """Store `manifest` under a tag or its own digest."""
        headers = {"Content-Type": manifest.media_type}
        self._request("PUT", self._manifest_url(reference), headers=headers, body=manifest.raw)

    def has_blob(self, digest: str) -> bool:
        """Return whether the repository has the blob with this digest."""
        try:
            self._request("HEAD", self._url(f"blobs/{digest}"))
        except NotFoundError:
            return False
        return True

    def put_blob(self, digest: str, content: bytes | BinaryIO, size: int) -> None:
        """Store a blob of `size` bytes unless it is there already.

        In one piece, "POST then PUT" in the distribution spec.
        """
        if self.has_blob(digest):
            return
        url = self._url("blobs/uploads/")
        target = _join(url, self._request("POST", url).headers.get("Location", ""))
        if target == url:
            raise RefusedError(f"{self.repository.registry} began an upload without saying where to")
        target += f"{'&' if urlsplit(target).query else '?'}digest={quote(digest)}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._request("PUT", target, headers=headers, body=content)

    def check_push(self) -> None:
        """Raise unless these credentials may push: begin an upload and cancel it."""
        url = self._url("blobs/uploads/")
        upload = _join(url, self._request("POST", url).headers.get("Location", ""))
        # Not every registry can cancel an upload; what is left over expires there. Another host is none of ours.
        if upload != url and same_origin(upload, url):
            self._send("DELETE", upload, {}, b"", retries=False)

    def check_reachable(self) -> None:
        """Raise UnreachableError unless the registry answers at all, whatever it says. Asks once."""
        self._send("GET", f"{self._origin}/v2/", {}, b"", retries=False)

    @property
    def _origin(self) -> str:
        return f"{'http' if self.plain_http else 'https'}://{self.repository.api_host}"

    def _url(self, tail: str) -> str:
        return f"{self._origin}/v2/{self.repository.path}/{tail}"

    def _manifest_url(self, reference: str) -> str:
        return self._url(f"manifests/{reference}")

    def _request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | BinaryIO = b""
    ) -> Answer:
        response = self._send(method, url, headers or {}, body)
        # What another host asks for, to which the registry has redirected, it does not get.
        if response.status == HTTPStatus.UNAUTHORIZED and same_origin(response.url, self._origin):
            scope = f"repository:{self.repository.path}:{'pull' if method in ('GET', 'HEAD') else 'pull,push'}"
            try:
                self._auth.answer(response.headers.get("WWW-Authenticate", ""), scope)
            except HTTPError as error:
                raise self._without_answer(error) from error
            response = self._send(method, url, headers or {}, body)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise self._failure(method, response)
        return response

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | BinaryIO,
        *,
        retries: urllib3.Retry | bool | None = None,
    ) -> Answer:
        # An upload may be sent to a store beside the registry, which these credentials are no business of.
        own = self._auth.headers if same_origin(url, self._origin) else {}
        try:
            return ask(
                self.http,
                method,
                url,
                headers={**headers, **own},
                body=body or None,
                retries=retries,
            )
        except HTTPError as error:
            raise self._without_answer(error) from error

    def _without_answer(self, error: HTTPError) -> RegistryError:
        if isinstance(error, TooLargeError):
            return RefusedError(f"{self.repository.registry} sends too much: {error}")
        return UnreachableError(f"{self.repository.registry} cannot be reached: {cause(error)}")

    def _failure(self, method: str, response: Answer) -> RegistryError:
        kind: type[RegistryError]
        match response.status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                kind = DeniedError
            case HTTPStatus.NOT_FOUND:
                kind = NotFoundError
            case _:
                kind = RefusedError
        said = _said(response.body)
        return kind(
            f"{self.repository.registry} answered {response.status} {response.reason}".rstrip()
            + f" to {method} for {self.repository.path}"
            + (f": {said}" if said else "")
        )


def _said(body: bytes) -> str:
    """Return the messages in an error body (distribution spec, "Error Codes"), or nothing."""
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(str(entry.get("message") or entry["code"]) for entry in errors)[:500]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return url
