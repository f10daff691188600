"""The distribution API of one repository: manifests in raw bytes, and whether these credentials may push."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from multiarchbuild.api.foreign import NonsenseError, parse_object

from .auth import Authenticator, challenges
from .credentials import Credentials
from .errors import (
    DeniedError,
    ImmutableTagError,
    NotFoundError,
    RefusedError,
    RegistryError,
    RejectedError,
    UnreachableError,
)
from .http import Answer, TooLargeError, ask, cause, connections, same_origin
from .index import INDEX, MEDIA_TYPES, Manifest, digest_of
from .names import Repository

_CHUNK = 256 * 1024
_KEPT = 8
"""Connections to one host that are kept for the next request: as many as threads ask side by side."""
_PAGE = 1000
"""Tags that are asked for at once; registries may send fewer."""
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "pull,push,delete"}
"""What a token is asked for, by method (https://distribution.github.io/distribution/spec/auth/scope/)."""
_IMMUTABLE = re.compile(
    r"immutab|cannot be overwritten|can't be overwritten|already exists|cannot be updated|locked", re.IGNORECASE
)
"""What registries say of a tag that may not move, with statuses from 400 (ECR, Artifact Registry) to 412 (Harbor)."""
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Those of 4xx that another try may be answered differently."""
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


def pool(ca_file: str | None, *, connect: float = 5, read: float = 30, patient: bool = True) -> urllib3.PoolManager:
    """Return the connections that clients share; time limits are in seconds, `patient` says whether to try again."""
    retries = _RETRY if patient else urllib3.Retry(0, redirect=5, raise_on_status=False)
    return connections(ca_file, retries=retries, timeout=urllib3.Timeout(connect=connect, read=read), maxsize=_KEPT)


@dataclass(slots=True)
class Client:
    """Talks to one repository. Every method raises RegistryError."""

    repository: Repository
    http: urllib3.PoolManager
    credentials: Credentials | None = None
    plain_http: bool = False
    renew: Callable[[], Credentials | None] | None = None
    """Returns the credentials as they are by now, where they are good for a while only."""
    _auth: Authenticator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._auth = Authenticator(self.http, self.credentials, self.plain_http, self.renew)

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

    def named_by(self, tag: str) -> str | None:
        """Return the digest that a tag names, or None where there is no such tag."""
        try:
            answer = self._request("HEAD", self._manifest_url(tag), headers={"Accept": ", ".join(MEDIA_TYPES)})
            return answer.headers.get("Docker-Content-Digest") or self.resolve(tag).digest
        except NotFoundError:
            return None

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
        try:
            self._request("PUT", self._manifest_url(reference), headers=headers, body=manifest.raw)
        except (RejectedError, DeniedError) as error:
            told = (
                _IMMUTABLE.search(str(error)) if isinstance(error, RejectedError) else "immutab" in str(error).lower()
            )
            if ":" in reference or not told:
                raise
            raise ImmutableTagError(
                f'tag "{reference}" already exists and is immutable in {self.repository} ({error})'
            ) from error

    def delete(self, reference: str) -> bool:
        """Delete a manifest by its digest, or a tag; return whether there was one.

        Raises:
            RejectedError: the registry can't: deleting is optional ("Content Management" in the distribution spec).
        """
        try:
            self._request("DELETE", self._manifest_url(reference))
        except NotFoundError:
            return False
        return True

    def tag_pages(self) -> Iterator[list[str]]:
        """Yield all tags of the repository, page by page; whoever deletes by them relies on that no tag is missing.

        Raises:
            RegistryError: a page is not a list of tags ("Listing Tags" in the distribution spec), or leads elsewhere.
        """
        url: str | None = self._url(f"tags/list?n={_PAGE}")
        while url:
            answer = self._request("GET", url)
            tags = _document(answer.body).get("tags")
            if (
                answer.status != HTTPStatus.OK
                or not isinstance(tags, list)
                or not all(isinstance(t, str) for t in tags)
            ):
                raise RefusedError(f"{self.repository.registry} answered no list of the tags of {self.repository.path}")
            yield tags
            url = self._next_page(url, answer.headers.get("Link", ""))

    def _next_page(self, url: str, link: str) -> str | None:
        """Return what follows the page at `url` by its Link header (RFC 8288), or None where it is the last."""
        if not link:
            return None
        match = re.match(r"\s*<([^>]+)>\s*;.*rel=\"?next", link)
        target = _join(url, match[1]) if match else url
        if target == url or not same_origin(target, self._origin):
            raise RefusedError(
                f"{self.repository.registry} does not say where the tags of {self.repository.path} go on"
            )
        return target

    def put_referrer(self, manifest: Manifest) -> bool:
        """Store a manifest with a `subject`; return whether the registry lists it by its referrers API.

        It says so by naming the subject in `OCI-Subject` (distribution spec 1.1, "Pushing Manifests with Subject").
        """
        headers = {"Content-Type": manifest.media_type}
        answer = self._request("PUT", self._manifest_url(manifest.digest), headers=headers, body=manifest.raw)
        return "OCI-Subject" in answer.headers

    def referrers(self, digest: str) -> Manifest | None:
        """Return the index of what refers to `digest`, or None where the registry has no referrers API."""
        try:
            answer = self._request("GET", self._url(f"referrers/{digest}"), headers={"Accept": INDEX})
        except (NotFoundError, RejectedError):
            return None
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        return Manifest(INDEX, answer.body) if media_type == INDEX else None

    def has_blob(self, digest: str) -> bool:
        """Return whether the repository has the blob with this digest."""
        url = self._url(f"blobs/{digest}")
        try:
            # Not followed: a registry that redirects to a store has the blob, whose URL may be for GET only.
            answer = self._request("HEAD", url, redirect=False)
            moved = urlsplit(_join(url, answer.headers.get("Location", ""))).netloc
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES and moved == urlsplit(url).netloc:
                self._request("HEAD", url)
        except NotFoundError:
            return False
        return True

    def mount_blob(self, digest: str, source: Repository) -> bool:
        """Take a blob over from another repository of the same registry; return whether the registry could.

        "Mounting a blob from another repository" in the distribution spec: who cannot begins an upload instead.
        """
        if source.registry != self.repository.registry:
            return False
        url = self._url(f"blobs/uploads/?mount={quote(digest)}&from={quote(source.path, safe='')}")
        try:
            answer = self._request("POST", url, scopes=(f"repository:{source.path}:pull",))
        except (DeniedError, NotFoundError, RejectedError):
            return False
        if answer.status == HTTPStatus.CREATED:
            return True
        self._cancel(url, answer)
        return False

    def put_blob(self, digest: str, content: bytes | BinaryIO, size: int) -> None:
        """Store a blob of `size` bytes unless it is there already."""
        if not self.has_blob(digest):
            self.upload(digest, content, size)

    def upload(self, digest: str, content: bytes | BinaryIO, size: int) -> None:
        """Store a blob of `size` bytes in one piece, "POST then PUT" in the distribution spec."""
        url = self._url("blobs/uploads/")
        target = _join(url, self._request("POST", url).headers.get("Location", ""))
        if target == url:
            raise RefusedError(f"{self.repository.registry} returned no upload Location")
        target += f"{'&' if urlsplit(target).query else '?'}digest={quote(digest)}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._request("PUT", target, headers=headers, body=content)

    def check_push(self) -> None:
        """Raise unless these credentials may push: begin an upload and cancel it."""
        url = self._url("blobs/uploads/")
        self._cancel(url, self._request("POST", url))

    def _cancel(self, url: str, begun: Answer) -> None:
        """End an upload that a POST to `url` has begun."""
        upload = _join(url, begun.headers.get("Location", ""))
        # Not every registry can cancel an upload; what is left over expires there. Another host is none of ours.
        if upload != url and same_origin(upload, url):
            self._send("DELETE", upload, {}, b"", retries=False)

    def check_reachable(self) -> None:
        """Raise UnreachableError unless the registry answers at all, whatever it says. Asks once."""
        self._send("GET", f"{self._origin}/v2/", {}, b"", retries=False)

    def schemes(self) -> frozenset[str]:
        """Return how the registry wants to be logged in to, such as `basic` and `bearer`; asks once, without login."""
        answer = self._send("GET", f"{self._origin}/v2/", {}, b"", retries=False)
        return frozenset(challenges(answer.headers.get("WWW-Authenticate", "")))

    @property
    def _origin(self) -> str:
        return f"{'http' if self.plain_http else 'https'}://{self.repository.api_host}"

    def _url(self, tail: str) -> str:
        return f"{self._origin}/v2/{self.repository.path}/{tail}"

    def _manifest_url(self, reference: str) -> str:
        return self._url(f"manifests/{reference}")

    def _request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO = b"",
        redirect: bool = True,
        scopes: Sequence[str] = (),
    ) -> Answer:
        """Send a request, once more after a 401; `scopes` are wanted of a token besides this repository's."""
        response = self._send(method, url, headers or {}, body, redirect=redirect)
        # What another host asks for, to which the registry has redirected, it does not get.
        if response.status == HTTPStatus.UNAUTHORIZED and same_origin(response.url, self._origin):
            scope = f"repository:{self.repository.path}:{_ACTIONS.get(method, 'pull,push')}"
            try:
                self._auth.answer(response.headers.get("WWW-Authenticate", ""), scope, *scopes)
            except HTTPError as error:
                raise self._without_answer(error) from error
            response = self._send(method, url, headers or {}, body, redirect=redirect)
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
        redirect: bool = True,
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
                redirect=redirect,
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
            case status if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and (
                status not in _TRANSIENT
            ):
                kind = RejectedError
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
        errors = parse_object(body, "the answer")["errors"]
        return "; ".join(str(entry.get("message") or entry["code"]) for entry in errors)[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        return parse_object(body, "the answer")
    except NonsenseError:
        return {}


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return url
