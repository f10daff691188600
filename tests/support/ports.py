"""Ports for programs that are told where to listen."""

import random
import socket

_RANGE = range(15000, 29000)
"""Below the ports that Linux gives to outgoing connections (ip_local_port_range, 32768 on): no connection can take one
that is free now before the program listens there."""
_RANDOM = random.SystemRandom()  # the usual one may have the same seed in every worker


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    while True:
        port = _RANDOM.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
