"""The traps in the client's Lease lock."""

import asyncio
from datetime import datetime

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from multiarchbuild.controller.leader import (
    LEASE_SECONDS,
    RENEW_SECONDS,
    REQUEST_SECONDS,
    RETRY_SECONDS,
    _Lock,
)


@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
async def test_a_time_is_written_with_its_microseconds(microsecond: int) -> None:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as api_client:
        lock = _Lock("lease", "ns", "me", api_client)
        text = str(datetime(2026, 1, 2, 3, 4, 5, microsecond))  # noqa: DTZ001 - as the client makes it
        assert lock.time_str_to_iso(text) == f"2026-01-02T03:04:05.{microsecond:06}Z"


async def test_a_network_that_fails_is_no_end_of_the_election() -> None:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as api_client:
        lock = _Lock("lease", "ns", "me", api_client)
        found, error = await lock.get("lease", "ns")
        assert not found
        assert "127.0.0.1" in error.reason


async def test_an_api_server_that_does_not_answer_is_not_waited_for() -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Future()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as api_client:
        lock = _Lock("lease", "ns", "me", api_client)
        found, _ = await asyncio.wait_for(lock.get("lease", "ns"), REQUEST_SECONDS + 1)
        assert not found
    server.close()


def test_a_leader_gives_up_before_another_may_take_over() -> None:
    # It sleeps, tries until the deadline, and the last try may take two requests and a sleep.
    assert RETRY_SECONDS + RENEW_SECONDS + 2 * REQUEST_SECONDS + RETRY_SECONDS < LEASE_SECONDS
