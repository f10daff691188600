"""Waiting for what nobody tells: when the API server acts by a policy or a definition that it has just been given."""

import time
from collections.abc import Callable

from .watch import PATIENCE


def until(what: str, check: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return once `check` holds. Each look takes a request, so that there need be no long pause between them."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
