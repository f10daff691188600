"""The client against a server on loopback that answers as the test says."""

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from urllib3 import HTTPHeaderDict

from multiarchbuild.oci.auth import Authenticator, challenges
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.errors import (
    DeniedError,
    ImmutableTagError,
    NotFoundError,
    RefusedError,
    RegistryError,
    RejectedError,
    UnreachableError,
)
from multiarchbuild.oci.http import LIMIT, same_origin
from multiarchbuild.oci.index import MANIFEST, Manifest
from multiarchbuild.oci.names import Repository

RAW = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"
Answer = tuple[int, dict[str, str], bytes]
Script = Callable[["Registry", str, str, HTTPHeaderDict], Answer]


class Registry:
    """Answers by `script` and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                registry.asked.append(f"{self.command} {self.path}")
                registry.body = body
                registry.sent += [body] if body else []
                status, headers, content = script(
                    registry, self.command, self.path, HTTPHeaderDict(self.headers.items())
                )
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - names that http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        self.body = b""
        self.sent: list[bytes] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self, credentials: Credentials | None = None) -> Client:
        return Client(Repository(self.host, "team/app"), pool(None), credentials, plain_http=True)


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Registry]]:
    started: list[Registry] = []

    def start(script: Script) -> Registry:
        started.append(Registry(script))
        return started[-1]

    yield start
    for registry in started:
        registry.server.shutdown()
        registry.server.server_close()


Serve = Callable[[Script], Registry]


def test_a_manifest_comes_in_its_own_bytes(serve: Serve) -> None:
    registry = serve(lambda *_: (200, {"Content-Type": f"{MANIFEST}; charset=utf-8"}, RAW))
    assert registry.client().get(DIGEST) == Manifest(MANIFEST, RAW)
    assert registry.asked == [f"GET /v2/team/app/manifests/{DIGEST}"]


def test_other_bytes_than_the_digest_says_are_refused(serve: Serve) -> None:
    registry = serve(lambda *_: (200, {"Content-Type": MANIFEST}, RAW + b" "))
    with pytest.raises(RefusedError, match="sent other bytes"):
        registry.client().get(DIGEST)


def test_basic_authentication(serve: Serve) -> None:
    expected = "Basic " + base64.b64encode(b"u:p").decode()

    def script(_: Registry, _method: str, _path: str, headers: HTTPHeaderDict) -> Answer:
        if headers.get("Authorization") != expected:
            return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
        return 200, {"Content-Type": MANIFEST}, RAW

    registry = serve(script)
    assert registry.client(Credentials("u", "p")).get(DIGEST).raw == RAW
    with pytest.raises(DeniedError, match="401"):
        registry.client(Credentials("u", "wrong")).get(DIGEST)
    with pytest.raises(DeniedError, match="401"):
        registry.client().get(DIGEST)


def token_server(registry: Registry, method: str, path: str, headers: HTTPHeaderDict) -> Answer:
    if path.startswith("/token"):
        if method == "POST":
            assert b"grant_type=refresh_token&refresh_token=refresh" in registry.body
        elif headers.get("Authorization") != "Basic " + base64.b64encode(b"u:p").decode():
            return 401, {}, b""
        scope = "pull%2Cpush" if "pull%2Cpush" in path or b"pull%2Cpush" in registry.body else "pull"
        return 200, {}, f'{{"token": "{scope}"}}'.encode()
    wanted = ["Bearer pull%2Cpush"] if method in {"PUT", "POST"} else ["Bearer pull", "Bearer pull%2Cpush"]
    if headers.get("Authorization") not in wanted:
        challenge = f'Bearer realm="http://{registry.host}/token",service="s",scope="repository:team/app:pull"'
        return 401, {"WWW-Authenticate": challenge}, b""
    return 200, {"Content-Type": MANIFEST}, RAW


@pytest.mark.parametrize("credentials", [Credentials("u", "p"), Credentials(identity_token="refresh")])
def test_token_authentication_asks_for_more_when_it_comes_to_pushing(serve: Serve, credentials: Credentials) -> None:
    client = serve(token_server).client(credentials)
    assert client.get(DIGEST).raw == RAW
    client.put(Manifest(MANIFEST, RAW), "latest")


def test_a_token_server_that_refuses_is_a_denial(serve: Serve) -> None:
    with pytest.raises(DeniedError, match=r"token server .* refused the credentials"):
        serve(token_server).client(Credentials("u", "wrong")).get(DIGEST)


def test_a_registry_that_is_busy_is_asked_again_when_it_says(serve: Serve) -> None:
    def script(registry: Registry, *_: object) -> Answer:
        if len(registry.asked) < 3:
            return (429, {"Retry-After": "0"}, b"") if len(registry.asked) == 1 else (503, {}, b"")
        return 201, {}, b""

    registry = serve(script)
    registry.client().put(Manifest(MANIFEST, RAW), "latest")
    assert registry.asked == ["PUT /v2/team/app/manifests/latest"] * 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((403, DeniedError), (404, NotFoundError), (501, RefusedError)),
        *((status, RejectedError) for status in (400, 405, 406, 409, 410, 412, 413, 415, 422)),
    ],
)
def test_errors_keep_the_words_of_the_registry(serve: Serve, status: int, kind: type[Exception]) -> None:
    body = b'{"errors": [{"code": "X", "message": "because"}]}'
    with pytest.raises(kind, match=rf"answered {status} .* to PUT for team/app: because"):
        serve(lambda *_: (status, {}, body)).client().put(Manifest(MANIFEST, RAW), "latest")


IMMUTABLE = {
    "ECR": (
        400,
        "The image tag 'latest' already exists in the 'app' repository and cannot be overwritten because the tag",
    ),
    "Harbor": (412, "Failed to process request due to 'app:latest' configured as immutable."),
    "ACR": (405, "The operation is disallowed on this registry: the tag is locked."),
    "GitLab": (403, "the tag is immutable"),
    "Quay": (409, "tag is immutable and cannot be updated"),
}


@pytest.mark.parametrize("name", IMMUTABLE)
def test_a_tag_that_may_not_move_is_named(serve: Serve, name: str) -> None:
    status, message = IMMUTABLE[name]
    body = json.dumps({"errors": [{"code": "X", "message": message}]}).encode()
    registry = serve(lambda *_: (status, {}, body))
    with pytest.raises(ImmutableTagError, match=r'tag "latest" already exists and is immutable in 127.*/team/app'):
        registry.client().put(Manifest(MANIFEST, RAW), "latest")
    assert len(registry.asked) == 1, "it is not tried again"
    with pytest.raises((RejectedError, DeniedError)) as raised:
        registry.client().put(Manifest(MANIFEST, RAW), DIGEST)
    assert not isinstance(raised.value, ImmutableTagError), "a digest is no tag"


CHALLENGES = {
    'Bearer realm="https://a/t",service="s",scope="x"': {
        "bearer": {"realm": "https://a/t", "service": "s", "scope": "x"}
    },
    'Basic realm="r", Bearer realm="https://a/t", service="s"': {
        "basic": {"realm": "r"},
        "bearer": {"realm": "https://a/t", "service": "s"},
    },
    'Bearer realm="https://a/t",service="s",Basic realm="r"': {
        "basic": {"realm": "r"},
        "bearer": {"realm": "https://a/t", "service": "s"},
    },
    "BASIC REALM=r": {"basic": {"realm": "r"}},
    'Basic realm="a \\"b\\", Bearer c", charset=UTF-8': {"basic": {"realm": 'a "b", Bearer c', "charset": "UTF-8"}},
    "Negotiate, Basic realm=r": {"negotiate": {}, "basic": {"realm": "r"}},
    'Bearer realm = "https://a/t" , service = s': {"bearer": {"realm": "https://a/t", "service": "s"}},
    "": {},
    ',,"': {},
}


@pytest.mark.parametrize("header", CHALLENGES)
def test_every_challenge_of_a_header_is_read(header: str) -> None:
    assert challenges(header) == CHALLENGES[header]


@pytest.mark.parametrize("several", [True, False], ids=["two headers", "one header"])
@pytest.mark.parametrize("credentials", [None, Credentials("u", "p")])
@pytest.mark.parametrize("basic_first", [True, False])
def test_of_several_ways_to_log_in_the_token_server_is_asked(
    serve: Serve, credentials: Credentials | None, *, basic_first: bool, several: bool
) -> None:
    def script(registry: Registry, _method: str, path: str, headers: HTTPHeaderDict) -> Answer:
        if path.startswith("/token"):
            assert "service=s" in path
            return 200, {}, b'{"token": "t"}'
        if headers.get("Authorization") == "Bearer t":
            return 200, {"Content-Type": MANIFEST}, RAW
        ways = ['Basic realm="r"', f'Bearer realm="http://{registry.host}/token",service="s"']
        ordered = ways if basic_first else ways[::-1]
        if several:
            return 401, {"WWW-Authenticate": ordered[0], "www-authenticate": ordered[1]}, b""
        return 401, {"WWW-Authenticate": ", ".join(ordered)}, b""

    assert serve(script).client(credentials).get(DIGEST).raw == RAW


def test_a_blob_that_is_kept_in_a_store_for_get_only_is_there(serve: Serve) -> None:
    store = serve(lambda _registry, method, *_: (200 if method == "GET" else 403, {}, RAW))
    registry = serve(lambda *_: (307, {"Location": f"http://{store.host}/signed?for=GET"}, b""))
    assert registry.client().has_blob(DIGEST)
    assert store.asked == []
    registry.client().put_blob(DIGEST, RAW, len(RAW))
    assert {asked.partition(" ")[0] for asked in registry.asked} == {"HEAD"}, "it is not sent again"
    assert registry.client().small_blob(DIGEST) == RAW


def test_a_blob_is_not_there_because_the_registry_has_another_path_for_it(serve: Serve) -> None:
    def script(registry: Registry, _method: str, path: str, _headers: HTTPHeaderDict) -> Answer:
        if path.startswith("/v2/"):
            return 308, {"Location": f"http://{registry.host}/other{path}"}, b""
        return 404, {}, b""

    assert not serve(script).client().has_blob(DIGEST)


def test_a_registry_that_is_not_there_is_unreachable() -> None:
    client = Client(Repository("127.0.0.1:1", "team/app"), pool(None), plain_http=True)
    with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:1 cannot be reached: .*refused"):
        client.check_reachable()


def test_whether_one_may_push_is_asked_by_an_upload_that_is_cancelled(serve: Serve) -> None:
    def script(_: Registry, method: str, _path: str, _headers: HTTPHeaderDict) -> Answer:
        return (202, {"Location": "/v2/team/app/blobs/uploads/1?state=x"}, b"") if method == "POST" else (204, {}, b"")

    registry = serve(script)
    registry.client().check_push()
    assert registry.asked == ["POST /v2/team/app/blobs/uploads/", "DELETE /v2/team/app/blobs/uploads/1?state=x"]


def test_exists_compares_the_digest(serve: Serve) -> None:
    assert serve(lambda *_: (200, {"Docker-Content-Digest": DIGEST}, b"")).client().exists(DIGEST)
    assert serve(lambda *_: (200, {}, b"")).client().exists(DIGEST)
    assert not serve(lambda *_: (200, {"Docker-Content-Digest": "sha256:0"}, b"")).client().exists(DIGEST)
    assert not serve(lambda *_: (404, {}, b"")).client().exists(DIGEST)


# What a hostile registry may try


def unauthorized(challenge: str) -> Answer:
    return 401, {"WWW-Authenticate": challenge}, b""


def spy(heard: list[HTTPHeaderDict], answer: Answer = (200, {}, b"")) -> Script:
    """Return a script that remembers the headers it is sent."""

    def script(_registry: Registry, _method: str, _path: str, headers: HTTPHeaderDict) -> Answer:
        heard.append(headers)
        return answer

    return script


def test_an_upload_on_another_host_is_not_cancelled_there(serve: Serve) -> None:
    heard: list[HTTPHeaderDict] = []
    other = serve(spy(heard))
    registry = serve(lambda *_: (202, {"Location": f"http://{other.host}/v2/team/app/blobs/uploads/1"}, b""))
    registry.client(Credentials(registry_token="bearer")).check_push()
    assert heard == []


@pytest.mark.parametrize("location", ["http://[", "https://{host}/v2/x", "", "ftp://{host}/"])
def test_an_upload_at_an_odd_place_is_left_to_expire(serve: Serve, location: str) -> None:
    registry = serve(lambda registry, *_: (202, {"Location": location.format(host=registry.host)}, b""))
    registry.client().check_push()
    assert registry.asked == ["POST /v2/team/app/blobs/uploads/"]


def test_a_redirect_to_another_host_carries_no_credentials(serve: Serve) -> None:
    heard: list[HTTPHeaderDict] = []
    storage = serve(spy(heard, (200, {"Content-Type": MANIFEST}, RAW)))
    registry = serve(lambda *_: (307, {"Location": f"http://{storage.host}/blob"}, b""))
    assert registry.client(Credentials(registry_token="bearer")).get(DIGEST).raw == RAW
    assert ["Authorization" in headers for headers in heard] == [False]


def test_the_host_that_a_registry_redirects_to_gets_no_credentials_when_it_asks(serve: Serve) -> None:
    heard: list[HTTPHeaderDict] = []
    thief = serve(lambda registry, *_: unauthorized(f'Bearer realm="http://{registry.host}/token"'))
    basic = serve(spy(heard, unauthorized('Basic realm="r"')))
    for other in (thief, basic):
        registry = serve(lambda *_, host=other.host: (307, {"Location": f"http://{host}/blob"}, b""))
        with pytest.raises(DeniedError, match="401"):
            registry.client(Credentials("u", "p")).get(DIGEST)
    assert thief.asked == ["GET /blob"]
    assert ["Authorization" in headers for headers in heard] == [False]


def test_a_token_server_cannot_send_the_refresh_token_elsewhere(serve: Serve) -> None:
    other = serve(lambda *_: (200, {}, b'{"token": "t"}'))

    def script(registry: Registry, _method: str, path: str, _headers: HTTPHeaderDict) -> Answer:
        if path == "/token":
            return 307, {"Location": f"http://{other.host}/token"}, b""
        return unauthorized(f'Bearer realm="http://{registry.host}/token"')

    with pytest.raises(RefusedError, match="answered 307"):
        serve(script).client(Credentials(identity_token="refresh")).get(DIGEST)
    assert other.asked == []


@pytest.mark.parametrize("realm", ["http://{host}/token", "HTTP://{host}/token", "ftp://{host}/token", "token", ""])
def test_credentials_for_a_registry_with_tls_are_sent_by_https_only(serve: Serve, realm: str) -> None:
    server = serve(lambda *_: (200, {}, b'{"token": "t"}'))
    authenticator = Authenticator(pool(None), Credentials("u", "p"))
    with pytest.raises(RefusedError, match="by https only"):
        authenticator.answer(f'Bearer realm="{realm.format(host=server.host)}"', "repository:team/app:pull")
    assert server.asked == []


@pytest.mark.parametrize(
    "answer",
    [b"{}", b"[]", b"", b"token", b"[" * 100_000, b'{"token": "a\\r\\nX-Evil: 1"}', '{"token": "ü"}'.encode()],
    ids=lambda answer: repr(answer[:20]),
)
def test_a_token_server_that_sends_no_token(serve: Serve, answer: bytes) -> None:
    def script(registry: Registry, _method: str, path: str, _headers: HTTPHeaderDict) -> Answer:
        if path.startswith("/token"):
            return 200, {}, answer
        return unauthorized(f'Bearer realm="http://{registry.host}/token"')

    with pytest.raises(RefusedError, match=r"token server .* sent"):
        serve(script).client(Credentials("u", "p")).get(DIGEST)


def test_an_answer_without_end_is_not_read_to_its_end(serve: Serve) -> None:
    with pytest.raises(RefusedError, match="sends too much"):
        serve(lambda *_: (200, {"Content-Type": MANIFEST}, b" " * (LIMIT + 1))).client().get(DIGEST)
    largest = b" " * LIMIT
    digest = f"sha256:{hashlib.sha256(largest).hexdigest()}"
    assert serve(lambda *_: (200, {"Content-Type": MANIFEST}, largest)).client().get(digest).raw == largest


def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(serve: Serve) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    assert len(bomb) < 100_000
    with pytest.raises(RefusedError, match="sends too much"):
        serve(lambda *_: (200, {"Content-Encoding": "gzip"}, bomb)).client().get(DIGEST)


def test_an_answer_that_breaks_off_is_asked_for_again(serve: Serve) -> None:
    def script(registry: Registry, *_: object) -> Answer:
        whole = len(registry.asked) == 3
        return (
            200,
            {"Content-Type": MANIFEST, "Content-Length": str(len(RAW)), "Connection": "close"},
            RAW[: len(RAW) if whole else 5],
        )

    assert serve(script).client().get(DIGEST).raw == RAW


def test_an_answer_that_always_breaks_off_is_none(serve: Serve) -> None:
    registry = serve(lambda *_: (200, {"Content-Length": "99", "Connection": "close"}, RAW))
    with pytest.raises(UnreachableError, match="cannot be reached"):
        registry.client().get(DIGEST)
    assert len(registry.asked) == 3


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"errors": [[]]}', b'{"errors": null}', b"\xff"], ids=["deep", "list", "null", "bytes"]
)
def test_an_error_that_cannot_be_read_is_still_an_error(serve: Serve, body: bytes) -> None:
    with pytest.raises(NotFoundError, match=r"answered 404 .* to GET for team/app$"):
        serve(lambda *_: (404, {}, body)).client().get(DIGEST)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://r.test/a", "https://r.test/b?c", True),
        ("https://r.test/a", "https://R.TEST:443/a", True),
        ("http://r.test/a", "http://r.test:80/a", True),
        ("https://r.test/a", "http://r.test/a", False),
        ("https://r.test/a", "https://r.test:8443/a", False),
        ("https://r.test/a", "https://r.test.evil/a", False),
        ("https://r.test/a", "https://r.test@evil/a", False),
        ("https://r.test/a", "https://[/a", False),
        ("ftp://r.test/a", "ftp://r.test/a", False),
    ],
)
def test_origin(one: str, other: str, *, same: bool) -> None:
    assert same_origin(one, other) is same


def blobs(registry: Registry, method: str, _path: str, _headers: HTTPHeaderDict) -> Answer:
    """A registry that takes blobs."""
    if method == "POST":
        return 202, {"Location": "/v2/team/app/blobs/uploads/1?state=x"}, b""
    known = any(asked.startswith("PUT") for asked in registry.asked)
    return (201 if method == "PUT" else 200 if known else 404), {}, b""


@pytest.mark.parametrize("content", [b"some bytes", BytesIO(b"some bytes")], ids=["bytes", "file"])
def test_a_blob_is_sent_in_one_piece_and_once(serve: Serve, content: bytes | BytesIO) -> None:
    registry = serve(blobs)
    for _ in range(2):
        registry.client().put_blob("sha256:abc", content, 10)
    assert registry.asked == [
        "HEAD /v2/team/app/blobs/sha256:abc",
        "POST /v2/team/app/blobs/uploads/",
        "PUT /v2/team/app/blobs/uploads/1?state=x&digest=sha256%3Aabc",
        "HEAD /v2/team/app/blobs/sha256:abc",
    ]
    assert registry.sent == [b"some bytes"]


def test_the_store_beside_a_registry_gets_no_credentials(serve: Serve) -> None:
    seen: list[str | None] = []

    def store(_: Registry, _method: str, _path: str, headers: HTTPHeaderDict) -> Answer:
        seen.append(headers.get("Authorization"))
        return 201, {}, b""

    beside = serve(store)

    def script(_: Registry, method: str, _path: str, headers: HTTPHeaderDict) -> Answer:
        if "Authorization" not in headers:
            return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
        return (202, {"Location": f"http://{beside.host}/upload"}, b"") if method == "POST" else (404, {}, b"")

    serve(script).client(Credentials("u", "p")).put_blob("sha256:abc", b"x", 1)
    assert seen == [None]


def test_tags_come_in_pages(serve: Serve) -> None:
    def script(_registry: Registry, _method: str, path: str, _headers: HTTPHeaderDict) -> Answer:
        if "last=b" in path:
            return 200, {}, b'{"tags": ["c"]}'
        return 200, {"Link": '</v2/team/app/tags/list?n=1000&last=b>; rel="next"'}, b'{"tags": ["a", "b"]}'

    assert list(serve(script).client().tag_pages()) == [["a", "b"], ["c"]]


NEXT = {"Link": '</v2/team/app/tags/list?n=1000&last=a>; rel="next"'}
NO_LISTS = [
    (404, b""),
    (200, b"["),
    (200, b"{}"),
    (200, b'{"tags": null}'),
    (200, b'{"tags": "a"}'),
    (206, b'{"tags": []}'),
]


@pytest.mark.parametrize(("status", "body"), NO_LISTS)
@pytest.mark.parametrize("first", [True, False], ids=["the first page", "a later page"])
def test_what_is_no_list_of_tags_is_not_taken_for_an_empty_one(
    serve: Serve, status: int, body: bytes, *, first: bool
) -> None:
    def script(_: Registry, __: str, path: str, ___: HTTPHeaderDict) -> Answer:
        return (status, {}, body) if first or "last=a" in path else (200, NEXT, b'{"tags": ["a"]}')

    with pytest.raises(RegistryError):
        list(serve(script).client().tag_pages())


@pytest.mark.parametrize(
    "link", ['<https://evil.test/v2/team/app/tags/list>; rel="next"', "<?n=1000>; rel=next", "what"]
)
def test_more_tags_that_cannot_be_asked_for_are_told(serve: Serve, link: str) -> None:
    with pytest.raises(RefusedError, match="does not say where the tags of team/app go on"):
        list(serve(lambda *_: (200, {"Link": link}, b'{"tags": ["a"]}')).client().tag_pages())


def test_deleting_what_is_not_there_is_no_error_and_a_refusal_is_one(serve: Serve) -> None:
    assert not serve(lambda *_: (404, {}, b"")).client().delete(DIGEST)
    assert serve(lambda *_: (202, {}, b"")).client().delete(DIGEST)
    with pytest.raises(RejectedError):
        serve(lambda *_: (405, {}, b"")).client().delete("v1")
