"""What kubelet and Prometheus ask over HTTP: /healthz, /readyz and /metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], bool]


@dataclass(slots=True)
class Health:
    """Named checks. That there is an answer at all shows that the event loop turns."""

    live: dict[str, Check] = field(default_factory=dict)
    """What a restart would mend when it is False."""
    ready: dict[str, Check] = field(default_factory=dict)
    """What has to be True for the operator to do its work, or to stand by for it."""


async def serve(health: Health, registry: CollectorRegistry, host: str, port: int) -> web.AppRunner:
    """Start to serve; `cleanup` of what it returns stops it. An empty `host` is every address, of IPv4 and IPv6.

    Raises:
        OSError: The address is not to be had.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _answer(health.live)

    async def readyz(_: web.Request) -> web.Response:
        return _answer({**health.live, **health.ready})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host or None, port).start()
    return runner


def _answer(checks: Mapping[str, Check]) -> web.Response:
    results = {name: check() for name, check in checks.items()}
    lines = [f"[{'+' if ok else '-'}] {name}" for name, ok in results.items()]
    return web.Response(text="\n".join(lines) + "\n", status=200 if all(results.values()) else 503)
