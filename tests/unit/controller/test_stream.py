"""Streams against a server that answers as API servers, proxies and networks do on bad days."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from multiarchbuild.controller import stream
from multiarchbuild.controller.kube import PODS, Kube
from multiarchbuild.controller.stream import Stream
from tests.support.bad_days import BAD, BAD_WATCHES, Answer, status
from tests.support.pace import slowness


@dataclass
class Server:
    """An API server with pods, and a list of what it does instead of answering properly."""

    objects: dict[str, int] = field(default_factory=dict)
    """Resource version by name."""
    version: int = 10
    bad: list[Answer] = field(default_factory=list)
    """The next answers, the first first; then it is well again."""
    lists: int = 0
    watches: list[str] = field(default_factory=list)
    """Resource version of each watch."""
    open: "list[asyncio.Queue[dict[str, Any] | None]]" = field(default_factory=list)
    page: int = 500

    def put(self, name: str, *, tell: bool = True) -> None:
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = self.version
        if tell:
            self._tell(kind, name)

    def remove(self, name: str, *, tell: bool = True) -> None:
        self.version += 1
        del self.objects[name]
        if tell:
            self._tell("DELETED", name)

    def end(self) -> None:
        """End all watches."""
        for queue in self.open:
            queue.put_nowait(None)

    def _tell(self, kind: str, name: str) -> None:
        for queue in self.open:
            queue.put_nowait({"type": kind, "object": self._object(name)})

    def _object(self, name: str) -> dict[str, Any]:
        version = str(self.objects.get(name, self.version))
        return {"metadata": {"name": name, "namespace": "a", "uid": f"uid-{name}", "resourceVersion": version}}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.bad:
            return await self.bad.pop(0)(request)
        if request.query.get("watch") != "true":
            self.lists += 1
            names = sorted(self.objects)
            start = int(request.query.get("continue", 0))
            end = start + self.page
            metadata = {"resourceVersion": str(self.version)}
            if end < len(names):
                metadata["continue"] = str(end)
            return web.json_response({"metadata": metadata, "items": [self._object(n) for n in names[start:end]]})
        self.watches.append(request.query["resourceVersion"])
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.open.append(queue)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.open.remove(queue)
        return response


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.002)


@dataclass
class Seen:
    """What the handler was told, as a copy of what exists."""

    server: Server
    stream: Stream = field(init=False)
    names: dict[str, str] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Objects whose event the handler does not cope with, once."""

    def __call__(self, kind: str, manifest: Any) -> None:
        name = manifest["metadata"]["name"]
        if name in self.broken:
            self.broken.remove(name)
            raise KeyError(name)
        self.told.append((kind, name))
        if kind == "DELETED":
            self.names.pop(name, None)
        else:
            self.names[name] = manifest["metadata"]["resourceVersion"]

    async def same(self) -> None:
        """Wait until the handler knows exactly what exists, and a watch is open."""

        def known() -> bool:
            exist = {name: str(version) for name, version in self.server.objects.items()}
            return bool(self.server.open) and self.names == exist

        await until(known)


@asynccontextmanager
async def streaming(server: Server, *, relist: bool = False) -> AsyncIterator[Seen]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    seen = Seen(server)
    async with Kube(Configuration(host=f"http://{host}:{port}")) as kube:
        seen.stream = Stream(kube, PODS, None, seen, page=server.page, relist=relist)
        task = asyncio.create_task(seen.stream.run())
        try:
            yield seen
            assert not task.done(), "a stream never ends"
        finally:
            task.cancel()
            await asyncio.wait({task})
            await runner.cleanup()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths of a second."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "STABLE_SECONDS", "UNREADY_SECONDS"):
        monkeypatch.setattr(stream, name, getattr(stream, name) / 100)
    # Longer than a busy machine needs for an answer: what is taken for dead is opened again, and takes as long again.
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 2.0)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_cold_it_opens_whatever_is_answered_first(bad: list[Answer]) -> None:
    server = Server(bad=list(bad))
    server.objects = {"one": 1}
    async with streaming(server) as seen:
        assert not seen.stream.ready
        await seen.same()
        server.put("two")
        await seen.same()
        await until(lambda: seen.stream.ready)


@pytest.mark.parametrize("bad", [*BAD.values(), *BAD_WATCHES.values()], ids=[*BAD, *BAD_WATCHES])
async def test_warm_it_goes_on_and_misses_nothing(bad: list[Answer]) -> None:
    server = Server()
    for name in ("stays", "changes", "goes"):
        server.put(name)
    async with streaming(server) as seen:
        await seen.same()
        server.bad = list(bad)
        server.end()
        await until(lambda: not server.open)
        # What happens while nobody listens.
        server.put("changes")
        server.put("comes")
        server.remove("goes")
        # This server does not remember events: it says so, and sends the stream to another list.
        server.bad.append(status(410, "Expired"))
        await seen.same()
        assert ("DELETED", "goes") in seen.told
        server.put("later")
        await seen.same()
        assert seen.stream.alive


async def test_a_watch_that_the_server_ends_goes_on_from_the_last_event_without_another_list() -> None:
    server = Server()
    server.put("one")
    async with streaming(server) as seen:
        await seen.same()
        server.put("two")
        await seen.same()
        server.end()
        await until(lambda: len(server.watches) == 2)
        assert server.watches[1] == str(server.version)
        assert server.lists == 1


async def test_events_that_get_lost_count_with_the_next_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RELIST_SECONDS", 0.1)
    server = Server()
    for name in ("changes", "goes"):
        server.put(name)
    async with streaming(server, relist=True) as seen:
        await seen.same()
        server.put("changes", tell=False)
        server.put("comes", tell=False)
        server.remove("goes", tell=False)
        await asyncio.sleep(0.1)
        server.end()
        await seen.same()
        assert ("DELETED", "goes") in seen.told
        assert server.lists == 2


async def test_a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() -> None:
    refused = asyncio.get_running_loop().time()
    server = Server(bad=[status(429, Retry_After="1")])
    async with streaming(server) as seen:
        await until(lambda: server.lists > 0)
        assert asyncio.get_running_loop().time() - refused >= 1
        await seen.same()


async def test_failures_in_a_row_make_it_slower_up_to_a_limit_and_the_operator_unready() -> None:
    server = Server()
    asked: list[float] = []

    async def refuse(_: web.Request) -> web.StreamResponse:
        asked.append(asyncio.get_running_loop().time())
        return web.Response(status=503)

    async with streaming(server) as seen:
        await seen.same()
        assert seen.stream.ready
        server.bad = [refuse] * 12
        server.end()
        await until(lambda: len(asked) >= 10)
        assert not seen.stream.ready
        pauses = [later - before for before, later in pairwise(asked)]
        # Half of the nominal pause is the least; a busy machine makes each of them longer.
        nominal = [min(stream.LONGEST_PAUSE, stream.FIRST_PAUSE * 2.0**failures) for failures in range(len(pauses))]
        assert all(pause >= least / 2 for pause, least in zip(pauses, nominal, strict=True))
        assert min(pauses[-3:]) < stream.LONGEST_PAUSE + 0.3 * slowness()
        server.bad = []
        await seen.same()
        await until(lambda: seen.stream.ready)


async def test_an_event_that_the_operator_does_not_cope_with_ends_nothing() -> None:
    server = Server()
    async with streaming(server) as seen:
        await seen.same()
        seen.broken = {"strange"}
        server.put("strange")
        server.put("normal")
        await seen.same()


async def test_pages_and_events_of_any_size() -> None:
    server = Server(page=2)
    for number in range(5):
        server.put(f"pod-{number}")
    async with streaming(server) as seen:
        await seen.same()
        long = {
            "metadata": {"name": "long", "namespace": "a", "uid": "u", "resourceVersion": "99", "x": "y" * 3_000_000}
        }
        server.objects["long"] = 99
        server.open[0].put_nowait({"type": "ADDED", "object": long})
        await seen.same()
