"""One operator at a time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from multiarchbuild.controller.leader import LEASE, LEASE_SECONDS
from tests.support.pace import slowness

from .conftest import Kubectl, Operator, OperatorFactory, eventually, in_namespace

pytestmark = pytest.mark.api


def holder(kubectl: Kubectl, namespace: str) -> str:
    return kubectl("get", "lease", LEASE, "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}")


async def ended(operator: Operator, seconds: float) -> int:
    async def check() -> bool:
        return operator.process.poll() is not None

    await eventually("it has ended", check, seconds)
    return operator.process.wait()


async def test_who_stops_hands_over_at_once(namespace: str, kubectl: Kubectl, operator: OperatorFactory) -> None:
    first = await operator().leading()
    second = await operator().standing_by()
    before = holder(kubectl, namespace)
    assert first.terminate()[0] == 0
    started = time.monotonic()
    await second.leading()
    took = time.monotonic() - started
    assert took < 3 * slowness()
    assert holder(kubectl, namespace) != before
    assert second.terminate()[0] == 0
    assert holder(kubectl, namespace) == ""


async def test_who_is_killed_is_followed_when_the_lease_has_expired(namespace: str, operator: OperatorFactory) -> None:
    del namespace
    first = await operator().leading()
    second = await operator().standing_by()
    first.kill()
    started = time.monotonic()
    while time.monotonic() - started < LEASE_SECONDS / 2:
        assert "watches" not in second.get("/readyz")[1], "not before its time"
        await asyncio.sleep(0.5)

    async def leads() -> bool:
        return "[+] watches synced" in second.get("/readyz")[1]

    await eventually("the second leads", leads, LEASE_SECONDS + 5 * slowness())


async def test_who_is_killed_and_started_again_in_its_pod_need_not_wait(
    namespace: str, kubectl: Kubectl, operator: OperatorFactory
) -> None:
    first = await operator(pod="operator-0").leading()
    first.kill()
    assert holder(kubectl, namespace) == "operator-0"
    started = time.monotonic()
    await operator(pod="operator-0").leading()
    assert time.monotonic() - started < LEASE_SECONDS / 2 * slowness()


async def test_whose_lease_is_taken_ends(namespace: str, kubectl: Kubectl, operator: OperatorFactory) -> None:
    first = await operator().leading()

    def take() -> None:
        patch = json.dumps({"spec": {"holderIdentity": "somebody-else"}})
        kubectl("patch", "lease", LEASE, "-n", namespace, "--type=merge", "-p", patch)

    take()
    assert await ended(first, LEASE_SECONDS) == 1
    assert first.lines(event="failed")[0]["error"] == "the lease was lost: another operator may lead now"
    assert holder(kubectl, namespace) == "somebody-else", "it does not release what is not its own"


async def test_who_is_cut_off_ends_before_another_may_lead(
    namespace: str, kubeconfig: Path, tmp_path: Path, operator: OperatorFactory
) -> None:
    local = in_namespace(kubeconfig, namespace, tmp_path / "through-proxy")
    config = json.loads(local.read_text())
    cluster = config["clusters"][0]["cluster"]
    async with proxy(cluster["server"]) as (port, flowing):
        cluster.pop("certificate-authority-data", None)
        cluster |= {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        local.write_text(json.dumps(config))
        first = await operator("--namespace", namespace, kubeconfig=local).leading()
        flowing.clear()
        cut = time.monotonic()
        assert await ended(first, LEASE_SECONDS + 5) == 1
        assert time.monotonic() - cut < LEASE_SECONDS


@asynccontextmanager
async def proxy(server: str) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Yield the port of a TCP proxy and the event that lets bytes flow; without it, nothing is ever answered."""
    flowing = asyncio.Event()
    flowing.set()
    target = urlsplit(server)
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)
        writers.extend((writer, back))
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], flowing
    finally:
        flowing.set()
        listener.close()
        for writer in writers:
            writer.close()
