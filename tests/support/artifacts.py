"""Archives and OCI artifacts, made as Flux makes them."""

import hashlib
import http.client
import io
import json
import ssl
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONFIG = "application/vnd.cncf.flux.config.v1+json"
CONTENT = "application/vnd.cncf.flux.content.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(content: bytes) -> str:
    """Return the digest of `content` as manifests write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, str], *, mode: str = "w:gz", time: int = 1_700_000_000, links: bool = False) -> bytes:
    """Return an archive with `files`; with `links` their content is where a symbolic link leads."""
    if mode == "w:zst":
        return zstd.compress(tar(files, mode="w:", time=time, links=links))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = time
            if links:
                member.type, member.linkname = tarfile.SYMTYPE, text
                archive.addfile(member)
            else:
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass(frozen=True)
class Registry:
    """A registry that artifacts are pushed to."""

    host: str
    authorization: str = ""
    ca_file: str = ""

    def push(self, repository: str, tag: str, *layers: tuple[str, bytes]) -> str:
        """Push an artifact with these layers (media type, content), as `flux push artifact` does; return its digest."""
        config = b"{}"
        for blob in (config, *(content for _, content in layers)):
            location = self._request("POST", f"/v2/{repository}/blobs/uploads/").getheader("Location", "")
            path = location[location.index("/v2/") :]
            self._request("PUT", f"{path}{'&' if '?' in path else '?'}digest={sha256(blob)}", blob)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": sha256(config)},
            "layers": [{"mediaType": kind, "size": len(blob), "digest": sha256(blob)} for kind, blob in layers],
            "annotations": {"org.opencontainers.image.revision": "main@sha1:1234"},
        }
        return self.put(repository, tag, document)

    def put(self, repository: str, tag: str, document: Mapping[str, object]) -> str:
        """Store a manifest and return its digest."""
        raw = json.dumps(document).encode()
        self._request("PUT", f"/v2/{repository}/manifests/{tag}", raw, str(document["mediaType"]))
        return sha256(raw)

    def _request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> http.client.HTTPResponse:
        connection = (
            http.client.HTTPSConnection(self.host, context=ssl.create_default_context(cafile=self.ca_file))
            if self.ca_file
            else http.client.HTTPConnection(self.host)
        )
        headers = {"Content-Type": kind, **({"Authorization": self.authorization} if self.authorization else {})}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        said = response.read()
        assert response.status in (201, 202), (method, path, response.status, said)
        return response
