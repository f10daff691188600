"""What API servers, proxies and networks answer on bad days to who lists and watches."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, reason: str = "", **headers: str) -> Answer:
    """Answer with an HTTP status; '_' in the name of a header stands for '-'."""

    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": code, "reason": reason, "message": f"no: {reason or code}"}
        return web.json_response(
            body, status=code, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return answer


async def page_of_a_proxy(_: web.Request) -> web.StreamResponse:
    """Answer as a proxy whose server is away."""
    return web.Response(text="<html>Bad gateway</html>", status=502, content_type="text/html")


async def page_that_is_well(_: web.Request) -> web.StreamResponse:
    """Answer as a proxy that wants to know who asks."""
    return web.Response(text="<html>Please log in</html>", content_type="text/html")


async def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def events(*lines: dict[str, Any] | bytes, then: str = "end") -> Answer:
    """Accept a watch, send these lines, and then end, reset the connection or be silent."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        if then == "reset":
            return await reset(request)
        if then == "silence":
            await asyncio.sleep(3600)
        return response

    return answer


def error(code: int) -> dict[str, Any]:
    """Return an event that says that something went wrong."""
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": f"event with {code}"}}


BAD: dict[str, list[Answer]] = {
    "unavailable": [status(503)] * 6,
    "internal error": [status(500, "InternalError")] * 2,
    "busy": [status(429, "TooManyRequests", Retry_After="0")] * 2,
    "expired": [status(410, "Expired")],
    "unauthorized": [status(401, "Unauthorized")] * 2,
    "forbidden for a while": [status(403, "Forbidden")] * 2,
    "not served for a while": [status(404)] * 3,
    "bad request": [status(400, "BadRequest")],
    "proxy": [page_of_a_proxy],
    "login page": [page_that_is_well],
    "reset": [reset] * 3,
}
"""Answers to any request, the first one first."""
BAD_WATCHES: dict[str, list[Answer]] = {
    **{f"ERROR event {code}": [events(error(code))] for code in (400, 403, 410, 429, 500, 504)},
    "ERROR event without a code": [events({"type": "ERROR", "object": {}})],
    "ended at once": [events()] * 3,
    "reset in the middle": [events(then="reset")],
    "cut within a line": [events(b'{"type": "MODIFIED", "obj', then="reset")],
    "not JSON": [events(b"<html>\n")],
    "not an event": [events({"kind": "PodList", "items": []})],
    "silence": [events(then="silence")],
    "unknown type": [events({"type": "PAUSED", "object": {"metadata": {"resourceVersion": "11"}}})],
}
"""Answers to watches."""
