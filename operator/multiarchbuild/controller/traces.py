"""Sends the traces of runs that have ended, by OpenTelemetry's own exporter."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final, NoReturn, Self

from multiarchbuild import __version__
from multiarchbuild.plan.tracing import Span, Tracing

from .logs import logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_LOG = logger(__name__)

WAITING: Final = 10_000
"""Spans that wait to be sent at most; where the receiver does not keep up, the newest are lost."""
AT_ONCE: Final = 512
SECONDS: Final = 10
"""Time for one request, with its retries."""


class Traces:
    """What waits to be sent. A receiver that does not answer costs no run anything but its trace."""

    def __init__(self, tracing: Tracing) -> None:
        """Send to where the policy says; without an endpoint, nothing is loaded, kept or sent."""
        self._tracing = tracing
        self._waiting: asyncio.Queue[Span] = asyncio.Queue(WAITING)

    @classmethod
    def started(cls, tracing: Tracing, group: asyncio.TaskGroup) -> Self:
        """Return one that sends as a task of `group`."""
        traces = cls(tracing)
        if tracing.enabled:
            group.create_task(traces.send())
        return traces

    def add(self, spans: Iterable[Span]) -> None:
        """Have spans sent."""
        try:
            for span in spans:
                self._waiting.put_nowait(span)
        except asyncio.QueueFull:
            _LOG.warning("traces are lost: the receiver does not keep up", endpoint=self._tracing.endpoint)

    async def send(self) -> NoReturn:
        """Send what comes, for ever."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

        exporter = OTLPSpanExporter(endpoint=self._tracing.url, timeout=SECONDS)
        while True:
            found = [await self._waiting.get()]
            while len(found) < AT_ONCE and not self._waiting.empty():
                found.append(self._waiting.get_nowait())
            result = await asyncio.to_thread(exporter.export, [_readable(span) for span in found])
            if result is not SpanExportResult.SUCCESS:
                _LOG.warning("traces were not sent", endpoint=self._tracing.endpoint, spans=len(found))


def _readable(span: Span) -> "ReadableSpan":
    """Return a span as the exporter takes it."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags  # noqa: PLC0415

    def context(number: str) -> SpanContext:
        return SpanContext(int(span.trace, 16), int(number, 16), is_remote=False, trace_flags=TraceFlags(1))

    return ReadableSpan(
        name=span.name,
        context=context(span.id),
        parent=context(span.parent) if span.parent else None,
        resource=Resource({"service.name": "multiarchbuild", "service.version": __version__}),
        attributes=span.attributes,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
        start_time=_nanoseconds(span.start),
        end_time=_nanoseconds(span.end),
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
