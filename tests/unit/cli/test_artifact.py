import gzip
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from multiarchbuild.cli import artifact
from multiarchbuild.cli.pack import Context, Packed, pack
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.index import MANIFEST, Manifest, digest_of
from multiarchbuild.oci.names import Repository

PACKED = Packed(digest=f"sha256:{'a' * 64}", diff_id=f"sha256:{'d' * 64}", size=9, files=1)


def test_the_shape_is_that_of_flux_push_artifact() -> None:
    config = artifact.config_of(PACKED)
    assert dict(artifact.manifest_of(PACKED).content) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.cncf.flux.config.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.flux.config.v1+json",
            "size": len(config),
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        },
        "layers": [
            {
                "mediaType": "application/vnd.cncf.flux.content.v1.tar+gzip",
                "size": 9,
                "digest": PACKED.digest,
            }
        ],
    }
    assert json.loads(config)["rootfs"] == {"type": "layers", "diff_ids": [PACKED.diff_id]}


class Store:
    """A registry in memory: blobs by digest, manifests by digest and tag."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.written = 0
        store = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                url = urlsplit(self.path)
                name = url.path.rpartition("/")[2]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "POST":
                    self.reply(202, b"", Location="/v2/team/app/blobs/uploads/1")
                elif self.command == "PUT":
                    store.written += 1
                    store.content |= {parse_qs(url.query).get("digest", [name])[0]: body, digest_of(body): body}
                    self.reply(201, b"")
                elif name in store.content:
                    self.reply(200, store.content[name], **{"Content-Type": MANIFEST})
                else:
                    self.reply(404, b"")

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - names that http.server asks for

            def reply(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.client = Client(
            Repository(f"127.0.0.1:{self.server.server_port}", "team/app"), pool(None), plain_http=True
        )


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.server.shutdown()
    made.server.server_close()


def compressed(folder: Path, level: int) -> tuple[Packed, io.BytesIO]:
    """Return the tarball of a folder as another program would compress it."""
    to = io.BytesIO()
    made = pack(Context.open(folder, "Dockerfile"), to)
    other = gzip.compress(gzip.decompress(to.getvalue()), level, mtime=0)
    return Packed(digest_of(other), made.diff_id, len(other), made.files), io.BytesIO(other)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n" * 100)
    return tmp_path


def test_the_same_files_are_the_same_artifact_however_they_are_compressed(store: Store, folder: Path) -> None:
    first, second = compressed(folder, 9), compressed(folder, 1)
    assert first[0].digest != second[0].digest
    pushed = artifact.push(store.client, *first)
    written = store.written
    assert artifact.push(store.client, *second) == pushed
    assert store.written == written, "nothing is sent again"
    (folder / "Dockerfile").write_text("FROM busybox\n")
    assert artifact.push(store.client, *compressed(folder, 9)) != pushed


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"something else"), gzip.compress(b"cut off")[:-9]],
    # Not by content: gzip's is another each second, and workers have to agree on the names of tests.
    ids=["no gzip", "something else", "cut off"],
)
def test_what_only_claims_to_be_the_same_files_is_not_taken(store: Store, folder: Path, content: bytes) -> None:
    packed, bytes_ = compressed(folder, 9)
    other = Packed(digest_of(content), packed.diff_id, len(content), 1)
    store.content |= {digest_of(content): content, artifact.tag(other): artifact.manifest_of(other).raw}
    assert artifact.push(store.client, packed, bytes_) == artifact.manifest_of(packed).digest


@pytest.mark.parametrize("raw", [b"{}", b"[]", b'{"layers": []}', b'{"layers": [{}]}', b"no json"])
def test_something_else_under_the_tag_is_replaced(store: Store, folder: Path, raw: bytes) -> None:
    packed, content = compressed(folder, 9)
    store.content[artifact.tag(packed)] = Manifest(MANIFEST, raw).raw
    pushed = artifact.push(store.client, packed, content)
    assert digest_of(store.content[artifact.tag(packed)]) == pushed
