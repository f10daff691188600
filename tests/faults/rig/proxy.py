"""A proxy in front of an API server that does what plans say goes wrong, and passes on everything else.

A request belongs to a script by the folder it asks for (`/plan/<key>/api/…`: an operator that has the proxy for
itself), else by its namespace, so that one operator serves many builds and each has its own faults.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from yarl import URL

from .faults import Fault, Injection

_NAMESPACE = re.compile(r"/namespaces/([^/?]+)")
_OF_EVENT = re.compile(rb'"namespace":"([^"]+)"')
_LOG = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log\b")
_FOLDER = re.compile(r"/plan/([^/]+)(/.*)")
_PASSED_ON = ("Content-Type", "Accept", "User-Agent")
_HANG_SECONDS: Final = 120.0
"""How long a client that waits for ever is left without an answer."""
_LONGEST_LINE: Final = 8 * 1024 * 1024


async def _nobody_to_kill() -> None:
    raise AssertionError("this plan kills an operator that it has not for itself")


Instead = Callable[[web.Request], Awaitable["web.StreamResponse | str | None"]]
"""Returns what answers a request in the place of the API server, or another path to ask it for, or None."""


@dataclass
class Script:
    """What goes wrong for one build, and what was asked so far."""

    injections: Iterable[Injection] = ()
    instead: Instead | None = None
    """Is asked first, about watches too."""
    kill: Callable[[], Awaitable[None]] = _nobody_to_kill
    """Kills the operator, and returns once it is dead."""
    late: float = 1.5
    """Seconds that an event is late."""
    requests: list[str] = field(default_factory=list)
    """Each request, its fault and the status of its answer."""
    events: int = 0
    """Events so far."""
    fired: set[Injection] = field(default_factory=set)
    """What has gone wrong so far."""
    _answers: dict[str, list["Answer"]] = field(default_factory=dict)

    def at(self, number: int, *, request: bool) -> Fault | None:
        """Return what goes wrong at a moment, and remember that it did."""
        for injection in self.injections:
            if injection.at == number and injection.fault.at_request is request and injection not in self.fired:
                self.fired.add(injection)
                return injection.fault
        return None

    def remember(self, url: str, answer: "Answer") -> None:
        """Keep the last answer to a read."""
        self._answers[url] = [answer]

    def before(self, url: str) -> "Answer | None":
        """Return the last answer to a read."""
        return next(iter(self._answers.get(url, ())), None)


@dataclass(frozen=True)
class Answer:
    """An answer of the API server."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Upstream:
    """The API server."""

    url: str
    tls: ssl.SSLContext | None = None


Logs = Callable[[str, str], AsyncIterator[bytes]]
"""Yields the log of a pod: namespace and name."""


class Proxy:
    """The proxy; `scripts` may be changed while it runs."""

    def __init__(self, upstream: Upstream) -> None:
        """Pass on to `upstream`, with the client certificate of its TLS context."""
        self.scripts: dict[str, Script] = {}
        """By folder or namespace."""
        self.url = ""
        """Where it listens, once it does."""
        self.away = asyncio.Event()
        """While it is set every connection is broken, those of the watches too."""
        self._cut = asyncio.Event()
        self.logs: Logs | None = None
        """Where logs of pods come from, where not from the API server."""
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._upstream.tls or False)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            read_bufsize=_LONGEST_LINE,
            # The API server refuses a request without a body that says what is in it.
            skip_auto_headers=("Content-Type",),
        )
        app = web.Application(client_max_size=_LONGEST_LINE)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        (address,) = (each[:2] for each in self._runner.addresses)
        self.url = f"http://{address[0]}:{address[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    def cut(self) -> None:
        """Break the connection of each watch that is open."""
        self._cut.set()
        self._cut = asyncio.Event()

    def _script(self, request: web.Request) -> tuple[str, Script | None]:
        """Return the path at the API server and the script that a request belongs to."""
        path = request.raw_path
        if (folder := _FOLDER.match(path)) is not None:
            return folder[2], self.scripts.get(folder[1])
        namespace = _NAMESPACE.search(path)
        return path, self.scripts.get(namespace[1]) if namespace else None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionResetError:
            return _reset(request)  # the client has gone

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, script = self._script(request)
        if self.away.is_set():
            return _reset(request)
        if script is not None and script.instead is not None:
            answer = await script.instead(request)
            if isinstance(answer, str):
                path = answer
            elif answer is not None:
                script.requests.append(f"{len(script.requests)} {request.method} {path} -> {answer.status}")
                return answer
        if "watch=true" in request.query_string or "watch=1" in request.query_string:
            return await self._watch(request, path, script)
        if script is None:
            return _response(await self._pass_on(request, path))
        fault = script.at(len(script.requests), request=True)
        number = len(script.requests)
        script.requests.append(f"{number} {request.method} {path} {fault or ''}")
        response = await self._faulty(request, path, script, fault)
        script.requests[number] += f" -> {response.status}"
        return response

    async def _faulty(self, request: web.Request, path: str, script: Script, fault: Fault | None) -> web.StreamResponse:
        old = script.before(path)
        if fault is Fault.STALE and request.method == "GET" and old is not None:
            return _response(old)
        if (answer := _refused(fault, request.method)) is not None:
            return answer
        if fault in {Fault.TIMEOUT_BEFORE, Fault.RESET_BEFORE, Fault.KILL_BEFORE}:
            return await _lost(request, script, fault)
        if self.logs is not None and (pod := _LOG.match(path)) is not None:
            return await _log(request, self.logs(pod[1], pod[2]), cut=fault is Fault.RESET_AFTER)
        answered = await self._pass_on(request, path)
        if request.method == "GET":
            script.remember(path, answered)
        if fault in {Fault.TIMEOUT_AFTER, Fault.RESET_AFTER, Fault.KILL_AFTER}:
            return await _lost(request, script, fault)
        return _response(answered)

    async def _pass_on(self, request: web.Request, path: str) -> Answer:
        assert self._session is not None
        async with self._session.request(
            request.method,
            URL(self._upstream.url + path, encoded=True),
            data=await request.read() or None,
            headers=_passed_on(request),
        ) as answer:
            kept = ("Content-Type", "Retry-After")
            headers = {name: answer.headers[name] for name in kept if name in answer.headers}
            return Answer(answer.status, headers, await answer.read())

    async def _watch(self, request: web.Request, path: str, own: Script | None) -> web.StreamResponse:
        assert self._session is not None
        url = URL(self._upstream.url + path, encoded=True)
        async with self._session.get(url, headers=_passed_on(request)) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            stream = Stream(web.StreamResponse(headers={"Content-Type": "application/json"}))
            await stream.response.prepare(request)
            try:
                return await self._stream(request, answer.content, stream, own)
            finally:
                stream.close()

    async def _stream(
        self, request: web.Request, lines: aiohttp.StreamReader, stream: "Stream", own: Script | None
    ) -> web.StreamResponse:
        gone = [asyncio.ensure_future(event.wait()) for event in (self.away, self._cut)]
        reading: asyncio.Future[bytes] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(lines.readline())
                await asyncio.wait({reading, *gone}, return_when=asyncio.FIRST_COMPLETED)
                if any(each.done() for each in gone):
                    return _reset(request)
                line = await reading
                if not line:
                    return stream.response
                ended = await self._event(request, stream, line, own)
                if ended is not None:
                    return ended
        finally:
            tasks = [task for task in (*gone, reading) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _event(
        self, request: web.Request, stream: "Stream", line: bytes, own: Script | None
    ) -> web.StreamResponse | None:
        """Pass on an event, or not; return the response where the stream ends with it."""
        found = _OF_EVENT.search(line)
        namespace = found[1].decode() if found else ""
        script = own or self.scripts.get(namespace)
        if script is None or not namespace or line.startswith(b'{"type":"BOOKMARK"'):
            await stream.write(namespace, line)
            return None
        fault = script.at(script.events, request=False)
        script.events += 1
        match fault:
            case Fault.GONE:
                message = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
                message["message"] = "too old resource version"
                await stream.write("", json.dumps({"type": "ERROR", "object": message}).encode() + b"\n")
                return stream.response
            case Fault.CUT:
                return _reset(request)
            case Fault.SILENT:
                await asyncio.sleep(_HANG_SECONDS)
                return _reset(request)
            case Fault.DROP:
                return None
            case Fault.DELAY:
                stream.hold(namespace, script.late)
            case Fault.REORDER:
                stream.overtake(namespace, line, script.late)
                return None
            case Fault.DUPLICATE:
                stream.later(line, script.late)
        await stream.write(namespace, line)
        return None


class Stream:
    """A watch stream, on which the events of one namespace can be held back while others pass."""

    def __init__(self, response: web.StreamResponse) -> None:
        """Write to `response`, which has been prepared."""
        self.response = response
        self._held: dict[str, list[bytes]] = {}
        self._overtaken: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, namespace: str, line: bytes) -> None:
        """Write an event, or hold it back behind others of its namespace."""
        if namespace in self._held:
            self._held[namespace].append(line)
            return
        overtaken = self._overtaken.pop(namespace, b"")
        await self.response.write(line + overtaken)

    def hold(self, namespace: str, seconds: float) -> None:
        """Hold back what comes of a namespace for some seconds."""
        self._held.setdefault(namespace, [])

        async def release() -> None:
            await asyncio.sleep(seconds)
            await self.response.write(b"".join(self._held.pop(namespace)))

        self._start(release())

    def overtake(self, namespace: str, line: bytes, seconds: float) -> None:
        """Let the next event of the namespace come before this one, if one comes in time."""
        self._overtaken[namespace] = line

        async def release() -> None:
            await asyncio.sleep(seconds)
            if (overtaken := self._overtaken.pop(namespace, b"")) != b"":
                await self.response.write(overtaken)

        self._start(release())

    def later(self, line: bytes, seconds: float) -> None:
        """Write an event after some seconds."""

        async def release() -> None:
            await asyncio.sleep(seconds)
            await self.response.write(line)

        self._start(release())

    def close(self) -> None:
        """Write nothing any more."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _log(request: web.Request, chunks: AsyncIterator[bytes], *, cut: bool) -> web.StreamResponse:
    """Serve a log; `cut` breaks the connection after the first of it."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    async for chunk in chunks:
        await response.write(chunk)
        if cut:
            return _reset(request)
    return response


def _passed_on(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _PASSED_ON if name in request.headers}


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)


def _refused(fault: Fault | None, method: str) -> web.Response | None:
    """Return the answer of an API server that does not do what it is asked to."""
    match fault:
        case Fault.CONFLICT if method != "GET":
            return refusal(409, "Conflict", "the object has been modified; please apply your changes again")
        case Fault.TOO_MANY_REQUESTS:
            return refusal(429, "TooManyRequests", "too many requests, please try again later", after=1)
        case Fault.INTERNAL_ERROR:
            return refusal(500, "InternalError", "etcdserver: leader changed")
    return None


def refusal(code: int, reason: str, message: str, *, after: int = 0) -> web.Response:
    """Return a `metav1.Status` as the API server writes it."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body |= {"message": message, "reason": reason, "code": code}
    headers = {"Retry-After": str(after)} if after else {}
    if after:
        body["details"] = {"retryAfterSeconds": after}
    return web.json_response(body, status=code, headers=headers)


def _reset(request: web.Request) -> web.Response:
    """Break the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


async def _lost(request: web.Request, script: Script, fault: Fault) -> web.Response:
    """Let a request have no answer."""
    if fault in {Fault.KILL_BEFORE, Fault.KILL_AFTER}:
        await script.kill()
    elif fault in {Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER}:
        await asyncio.sleep(_HANG_SECONDS)
    return _reset(request)
