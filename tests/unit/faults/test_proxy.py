"""The proxy does what a plan says, at the moment that it says, and passes on everything else."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.faults.rig.faults import Fault, Injection
from tests.faults.rig.proxy import Proxy, Script, Upstream

POD = "/api/v1/namespaces/one/pods/app"
WATCH = "/api/v1/pods?watch=true"


@dataclass
class Server:
    """Stands for the API server: counts what it did, and streams what it is told to."""

    writes: int = 0
    reads: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            for event in self.events:
                await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            await asyncio.sleep(1)
            return response
        if request.method == "GET":
            self.reads += 1
            return web.json_response({"reads": self.reads, "path": request.path_qs})
        self.writes += 1
        return web.json_response({"writes": self.writes, "body": await request.text()}, status=201)


@asynccontextmanager
async def proxied(*injections: Injection, key: str = "one") -> AsyncIterator[tuple[Proxy, Server, Script]]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Proxy(Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}")) as proxy:
        script = proxy.scripts[key] = Script(injections, late=0.2)
        yield proxy, server, script
    await runner.cleanup()


async def ask(proxy: Proxy, method: str = "GET", path: str = POD, seconds: float = 60) -> tuple[int, Any]:
    """Return status and body of an answer."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, proxy.url + path, data="{}") as answer,
    ):
        return answer.status, await answer.json()


async def test_what_no_plan_is_about_is_passed_on() -> None:
    async with proxied() as (proxy, server, script):
        assert await ask(proxy, path=f"{POD}?a=b%2Fc") == (200, {"reads": 1, "path": f"{POD}?a=b/c"})
        assert await ask(proxy, "PATCH") == (201, {"writes": 1, "body": "{}"})
        assert await ask(proxy, path="/api/v1/namespaces/other/pods") == (
            200,
            {"reads": 2, "path": "/api/v1/namespaces/other/pods"},
        )
        assert server.reads == 2
        assert [line.split(" ")[1] for line in script.requests] == ["GET", "PATCH"]


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault.CONFLICT, 409), (Fault.TOO_MANY_REQUESTS, 429), (Fault.INTERNAL_ERROR, 500)]
)
async def test_a_refused_request_is_not_performed(fault: Fault, code: int) -> None:
    async with proxied(Injection(fault, 1)) as (proxy, server, script):
        assert (await ask(proxy, "POST"))[0] == 201
        status, body = await ask(proxy, "POST")
        assert (status, body["code"], body["kind"]) == (code, code, "Status")
        assert (await ask(proxy, "POST"))[0] == 201
        assert server.writes == 2
        assert script.fired == {Injection(fault, 1)}


@pytest.mark.parametrize(
    ("fault", "performed"),
    [
        (Fault.TIMEOUT_BEFORE, 0),
        (Fault.TIMEOUT_AFTER, 1),
        (Fault.RESET_BEFORE, 0),
        (Fault.RESET_AFTER, 1),
        (Fault.KILL_BEFORE, 0),
        (Fault.KILL_AFTER, 1),
    ],
)
async def test_a_request_without_an_answer_was_performed_or_not(fault: Fault, performed: int) -> None:
    killed = []

    async def kill() -> None:
        killed.append(fault)

    async with proxied(Injection(fault, 0)) as (proxy, server, script):
        script.kill = kill
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await ask(proxy, "POST", seconds=3)
        assert server.writes == performed
        assert bool(killed) is fault.kills
        assert (await ask(proxy, "POST"))[0] == 201


async def test_a_stale_read_is_what_the_same_read_was_before() -> None:
    async with proxied(Injection(Fault.STALE, 2)) as (proxy, server, _):
        first = await ask(proxy)
        await ask(proxy, path=f"{POD}s")
        assert await ask(proxy) == first
        assert server.reads == 2
        assert await ask(proxy) != first


def event(number: int, namespace: str = "one") -> dict[str, Any]:
    return {"type": "MODIFIED", "object": {"metadata": {"name": f"pod-{number}", "namespace": namespace}}}


async def watched(proxy: Proxy, path: str = WATCH) -> list[tuple[str, float]]:
    """Return the names (or types) that a watch shows until it ends, each with when it came."""
    seen, started = [], time.monotonic()
    try:
        async with aiohttp.ClientSession() as session, session.get(proxy.url + path) as answer:
            async for line in answer.content:
                shown = json.loads(line)
                name = shown["object"].get("metadata", {}).get("name", shown["type"])
                seen.append((name, time.monotonic() - started))
    except aiohttp.ClientError:
        seen.append(("broken", time.monotonic() - started))
    return seen


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.DROP, ["pod-0", "pod-2", "pod-3"]),
        (Fault.DUPLICATE, ["pod-0", "pod-1", "pod-2", "pod-3", "pod-1"]),
        (Fault.REORDER, ["pod-0", "pod-2", "pod-1", "pod-3"]),
        (Fault.DELAY, ["pod-0", "pod-1", "pod-2", "pod-3"]),
        (Fault.GONE, ["pod-0", "ERROR"]),
        (Fault.CUT, ["pod-0", "broken"]),
    ],
)
async def test_a_stream_goes_wrong_at_an_event(fault: Fault, expected: list[str]) -> None:
    async with proxied(Injection(fault, 1)) as (proxy, server, script):
        server.events = [event(number) for number in range(4)]
        seen = await watched(proxy)
        assert [name for name, _ in seen] == expected
        # What is late comes late however slow the machine; what is not may be late on a slow one.
        late = {Fault.DELAY: seen[1:], Fault.DUPLICATE: seen[4:]}.get(fault, [])
        assert all(at >= 0.2 for _, at in late)
        assert script.fired


async def test_events_of_other_namespaces_are_left_alone() -> None:
    async with proxied(Injection(Fault.DROP, 0), Injection(Fault.DELAY, 1)) as (proxy, server, _):
        server.events = [event(0), event(1, "other"), event(2), event(3, "other")]
        assert [name for name, _ in await watched(proxy)] == ["pod-1", "pod-3", "pod-2"]


async def test_a_silent_stream_stays_open() -> None:
    async with proxied(Injection(Fault.SILENT, 1)) as (proxy, server, _):
        server.events = [event(0), event(1)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watched(proxy), 1.5)


async def test_a_folder_is_a_script_of_its_own_for_everything() -> None:
    async with proxied(Injection(Fault.INTERNAL_ERROR, 0), Injection(Fault.DROP, 0), key="mine") as (proxy, server, _):
        server.events = [event(0, "any"), event(1, "any")]
        assert (await ask(proxy, path="/plan/mine/api/v1/nodes"))[0] == 500
        assert await ask(proxy, path="/plan/mine/api/v1/nodes") == (200, {"reads": 1, "path": "/api/v1/nodes"})
        assert [name for name, _ in await watched(proxy, f"/plan/mine{WATCH}")] == ["pod-1"]


async def test_an_api_server_that_is_away() -> None:
    async with proxied() as (proxy, server, _):
        server.events = [event(number) for number in range(50)]
        watching = asyncio.ensure_future(watched(proxy))
        await asyncio.sleep(0.2)
        proxy.away.set()
        assert (await watching)[-1][0] == "broken"
        with pytest.raises(aiohttp.ClientError):
            await ask(proxy)
        proxy.away.clear()
        assert (await ask(proxy))[0] == 200


async def test_what_a_test_answers_in_the_place_of_the_api_server() -> None:
    async with proxied() as (proxy, server, script):

        async def instead(request: web.Request) -> web.StreamResponse | str | None:
            if request.query.get("watch"):
                return web.Response(status=503)
            return f"{POD}?another=1" if request.method == "GET" else None

        script.instead = instead
        assert await ask(proxy) == (200, {"reads": 1, "path": f"{POD}?another=1"})
        assert (await ask(proxy, "POST"))[0] == 201
        async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}{POD}s?watch=1") as answer:
            assert answer.status == 503
        assert server.writes == 1
        assert [line.split(" ")[1] for line in script.requests] == ["GET", "POST", "GET"]


async def test_watches_are_cut_and_nothing_else() -> None:
    async with proxied() as (proxy, server, _):
        server.events = [event(number) for number in range(50)]
        watching = asyncio.ensure_future(watched(proxy))
        await asyncio.sleep(0.2)
        proxy.cut()
        assert (await watching)[-1][0] == "broken"
        server.events = [event(0)]
        assert [name for name, _ in await watched(proxy)] == ["pod-0"]
