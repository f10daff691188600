"""Ids of traces: whoever has a part in a run knows them without being told.

Source: https://www.w3.org/TR/trace-context/#traceparent-header.
"""

import hashlib
from collections.abc import Iterable


def trace_id(namespace: str, name: str, run: str) -> str:
    """Return the id of the trace of a run: 32 hexadecimal digits."""
    return _digits(32, namespace, name, run)


def span_id(trace: str, *what: str) -> str:
    """Return the id of a span of a trace: 16 hexadecimal digits."""
    return _digits(16, trace, *what)


def build_span_id(trace: str, platforms: Iterable[object]) -> str:
    """Return the id of the span of a builder, below which BuildKit's own spans are."""
    return span_id(trace, "build", *map(str, platforms))


def trace_parent(trace: str, span: str) -> str:
    """Return what a program is told that continues a trace, in TRACEPARENT."""
    return f"00-{trace}-{span}-01"


def _digits(count: int, *parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:count]
