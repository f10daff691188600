"""Ports that nothing else can take."""

import socket
from pathlib import Path

from tests.support.ports import free_port


def test_no_connection_can_take_a_free_port() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert max(ports) < lowest
    assert len(ports) > 10


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", free_port()))
        listening.listen()
        assert free_port() != listening.getsockname()[1]
