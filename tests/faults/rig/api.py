"""The API server as the rig itself uses it: past the proxy, as administrator, and not by the operator's own client."""

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiohttp
import yaml

from .proxy import Upstream

T = TypeVar("T")
Object = dict[str, Any]
_JSON: Final = "application/json"
METADATA: Final = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for no more than the metadata of what was written."""


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, body: Mapping[str, Any], what: str) -> None:
        """`body`: its `metav1.Status`."""
        super().__init__(f"{what}: {status} {body.get('message', '')}")
        self.status = status
        self.message = str(body.get("message", ""))
        self.causes: list[Mapping[str, Any]] = (body.get("details") or {}).get("causes") or []


async def insist(
    call: Callable[[], Awaitable[T]],
    seconds: float = 180,
    *,
    statuses: Collection[int] = (429,),
    errors: tuple[type[Exception], ...] = (),
) -> T:
    """Return what `call` does, tried again for some seconds while the API server is busy or away.

    Args:
        call: What is done, once more each time.
        seconds: For how long.
        statuses: After which answers, besides 5xx.
        errors: After which errors, besides those of the network.
    """
    passing: tuple[type[Exception], ...] = (ApiError, aiohttp.ClientError, TimeoutError, OSError, *errors)
    end = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except passing as error:
            final = isinstance(error, ApiError) and error.status < 500 and error.status not in statuses
            if final or time.monotonic() > end:
                raise
        await asyncio.sleep(1)


def upstream(kubeconfig: Path) -> Upstream:
    """Return the API server that a kubeconfig with a client certificate names."""
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_text(cluster, "certificate-authority", kubeconfig))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(_text(user, "client-certificate", kubeconfig) + _text(user, "client-key", kubeconfig))
        pair.flush()
        context.load_cert_chain(pair.name)
    return Upstream(cluster["server"], context)


def _text(entry: Mapping[str, str], name: str, kubeconfig: Path) -> str:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"]).decode()
    return (kubeconfig.parent / entry[name]).read_text(encoding="utf-8")


class Api:
    """A client with one method for each verb that the rig uses."""

    def __init__(self, server: Upstream) -> None:
        """Talk to `server`, from `async with` on."""
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=32, ssl=self._server.tls or False)
        timeout = aiohttp.ClientTimeout(total=300)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**23)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str) -> Object:
        """Return an object or a list."""
        return await self._request("GET", path)

    async def create(self, path: str, manifest: Object, *, exists_ok: bool = False, accept: str = _JSON) -> Object:
        """Create an object."""
        try:
            return await self._request("POST", path, manifest, accept=accept)
        except ApiError as error:
            if exists_ok and error.status == 409:
                return {}
            raise

    async def merge(self, path: str, patch: Object) -> Object:
        """Patch an object (JSON merge patch)."""
        return await self._request("PATCH", path, patch, "application/merge-patch+json")

    async def apply(self, path: str, manifest: Object, manager: str = "faults", *, accept: str = _JSON) -> Object:
        """Apply an object (server-side apply) as a field manager."""
        query = f"?fieldManager={manager}&force=true"
        return await self._request("PATCH", path + query, manifest, "application/apply-patch+yaml", accept)

    async def delete(self, path: str, options: Object | None = None) -> None:
        """Delete an object, if it is there."""
        try:
            await self._request("DELETE", path, options or {})
        except ApiError as error:
            if error.status != 404:
                raise

    async def watch(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and the object of each event, for ever, what exists first."""
        assert self._session is not None
        label = f"&labelSelector={selector}" if selector else ""
        version = ""
        while True:
            if not version:
                listed = await insist(lambda: self.get(f"{path}?resourceVersion=0{label}"), statuses=(404, 429))
                version = listed["metadata"]["resourceVersion"]
                for item in listed["items"]:
                    yield "ADDED", item
            url = f"{self._server.url}{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}{label}"
            timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
            try:
                async with self._session.get(url, timeout=timeout) as stream:
                    if stream.status != 200:
                        version = ""
                        await asyncio.sleep(0.2)
                        continue
                    async for line in stream.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        assert self._session is not None
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "Accept": accept}
        async with self._session.request(method, self._server.url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            try:
                result: Object = json.loads(text)
            except ValueError:
                result = {"message": text}
            if answer.status >= 400:
                raise ApiError(answer.status, result, f"{method} {path}")
            return result
