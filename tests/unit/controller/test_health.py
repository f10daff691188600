"""The endpoints for probes and Prometheus."""

import socket

import aiohttp
import pytest

from multiarchbuild.controller.health import Health, serve
from multiarchbuild.controller.metrics import Metrics


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("live", "ready", "expected"),
    [(True, True, (200, 200)), (True, False, (200, 503)), (False, True, (503, 503))],
)
async def test_probes(live: bool, ready: bool, expected: tuple[int, int]) -> None:  # noqa: FBT001
    port = free_port()
    checks = Health(live={"workers": lambda: live}, ready={"watches synced": lambda: ready})
    server = await serve(checks, Metrics().registry, "127.0.0.1", port)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/healthz") as healthz, session.get("/readyz") as readyz:
            assert (healthz.status, readyz.status) == expected
            assert f"[{'+' if ready else '-'}] watches synced" in await readyz.text()
        async with session.get("/metrics") as metrics:
            assert metrics.headers["Content-Type"].startswith("text/plain")
            assert 'mab_build_info{version="' in await metrics.text()
    await server.cleanup()


async def test_a_taken_address_is_an_error() -> None:
    port = free_port()
    server = await serve(Health(), Metrics().registry, "127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        await serve(Health(), Metrics().registry, "127.0.0.1", port)
    await server.cleanup()


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_without_a_host_it_serves_ipv4_and_ipv6(address: str) -> None:
    port = free_port()
    server = await serve(Health(), Metrics().registry, "", port)
    async with aiohttp.ClientSession(f"http://{address}:{port}") as session, session.get("/healthz") as healthz:
        assert healthz.status == 200
    await server.cleanup()
