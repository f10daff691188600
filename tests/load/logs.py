"""The endpoint of the played kubelet at which the API server asks for the logs of pods."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.cluster.layout import Layout
from tests.cluster.pki import Authority

Logs = Callable[[str, str], AsyncIterator[bytes]]
"""Yields the log of a pod: namespace and name."""


@asynccontextmanager
async def endpoint(layout: Layout, logs: Logs) -> AsyncIterator[tuple[str, int]]:
    """Serve `logs` as a kubelet does; yield the address and the port."""
    address = str(layout.addresses.host)
    pair = Authority(layout.pki, "ca").issue("played-kubelet", common_name="system:node:played", hosts=(address,))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in logs(request.match_info["namespace"], request.match_info["pod"]):
            await response.write(chunk)
        return response

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", serve)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0, ssl_context=context)
        await site.start()
        port = int(runner.addresses[0][1])
        yield address, port
    finally:
        await runner.cleanup()
