"""Traces of requests, sent over OTLP if the standard variables of OpenTelemetry name a collector.

A request's ``traceparent`` is continued: the server makes a span of its own and passes that on, to
a model server in the request's headers, to a stream in the event's, whose worker makes a span of
its own. A span has the route's pattern,
the status and the names of stages, and nothing else that the request was about: no path, no query,
no key, no value. Without ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``) nothing is
loaded, and every function here returns at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from fourways_http import Promise, Request, Response
from fourways_http.message import Handler
from fourways_http.state import Observe

from .access_log import PROBES
from .extras import missing_library

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CONTEXT = (b"traceparent", b"tracestate")
_SERVER_ERROR = 500

logger = logging.getLogger("fourways.tracing")


class Tracing:
    """The spans of one process."""

    def __init__(self, service: str) -> None:
        """Start to export. Raises ModuleNotFoundError if the extra ``tracing`` is not installed."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("fourways")
        self._propagator = TraceContextTextMapPropagator()

    def parent_of(self, request: Request) -> Any:
        """Return the context that a request continues."""
        carrier = {}
        for name in _CONTEXT:
            value = request.header(name)
            if value is not None:
                carrier[name.decode()] = value.decode("latin-1")
        return self._propagator.extract(carrier)

    def headers(self, context: Any = None) -> dict[str, str]:
        """Return the headers that continue a context, by default the present one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context)
        return carrier

    def event_span(self, headers: Iterable[tuple[str, bytes]]) -> Any | None:
        """Return the span of an event that continues a trace; None if it continues none."""
        from opentelemetry import trace

        names = {name.decode() for name in _CONTEXT}
        carrier = {name: value.decode("latin-1") for name, value in headers if name in names}
        if not carrier:
            return None
        parent = self._propagator.extract(carrier)
        if not trace.get_current_span(parent).get_span_context().is_valid:
            return None
        return self.tracer.start_span("process event", parent, trace.SpanKind.CONSUMER)

    def close(self) -> None:
        """Send what is left; takes at most some seconds."""
        self._provider.shutdown()


_active: Tracing | None = None


def start_tracing(service: str) -> Tracing | None:
    """Start to trace this process if a collector is named; ``service`` is its default name."""
    global _active
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        _active = Tracing(service)
    except ModuleNotFoundError as error:
        logger.warning("requests are not traced: %s", missing_library(error) or error)
    return _active


def stop_tracing() -> None:
    """Send what is left, and trace nothing more."""
    global _active
    active, _active = _active, None
    if active is not None:
        active.close()


def with_tracing(app: Handler, observe: Observe) -> tuple[Handler, Observe]:
    """Return an application and an observer that trace requests besides, if they are traced."""
    return (app, observe) if _active is None else (_Traced(app, _active), _Ended(observe).observe)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Trace a stage of the present request, such as ``features``."""
    if _active is None:
        yield
        return
    with _active.tracer.start_as_current_span(name, record_exception=False):
        yield


def begin_stage(name: str) -> Callable[[object], None] | None:
    """Begin a stage of the present request; return what ends it. None if nothing is traced."""
    if _active is None:
        return None
    span = _active.tracer.start_span(name)
    return lambda _: span.end()


def event_headers() -> Mapping[str, bytes]:
    """Return the headers of an event that the present request publishes."""
    if _active is None:
        return {}
    return {name: value.encode() for name, value in _active.headers().items()}


class EventSpans:
    """What a stream worker does for events, from their scoring until their results are stored."""

    def __init__(self, spans: Mapping[int, Any]) -> None:
        self._spans = spans

    def ending(self, dead: Collection[int]) -> Callable[[], None]:
        """Return what ends the spans; those of ``dead``, by index, became dead letters."""
        return partial(self._end, tuple(dead)) if self._spans else _nothing

    def _end(self, dead: Collection[int]) -> None:
        from opentelemetry.trace import Status, StatusCode

        for at, span in self._spans.items():
            if at in dead:
                span.set_status(Status(StatusCode.ERROR))
            span.end()


_UNTRACED = EventSpans({})


def _nothing() -> None: ...


def begin_events(count: int, headers: Callable[[int], Iterable[tuple[str, bytes]]]) -> EventSpans:
    """Begin a span for each of ``count`` events whose headers continue a trace."""
    if _active is None:
        return _UNTRACED
    spans = {at: _active.event_span(headers(at)) for at in range(count)}
    return EventSpans({at: span for at, span in spans.items() if span is not None})


class _Traced:
    def __init__(self, app: Handler, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    def __call__(self, request: Request) -> Response | Promise | Awaitable[Response]:
        from opentelemetry import context, trace

        tracing = self._tracing
        method = request.method[:16].decode("latin-1")
        span = tracing.tracer.start_span(
            method, tracing.parent_of(request), trace.SpanKind.SERVER, record_exception=False
        )
        request.trace = span
        inside = trace.set_span_in_context(span)
        # Not in place: requests with the same head share the list, and what is known of it.
        kept = [header for header in request.headers if header[0].lower() not in _CONTEXT]
        sent = tracing.headers(inside).items()
        request.headers = kept + [(name.encode(), value.encode()) for name, value in sent]
        request.memo = None
        token = context.attach(inside)
        try:
            answer = self._app(request)
        finally:
            context.detach(token)
        if isinstance(answer, Response | Promise):
            return answer
        return _within(inside, answer)


async def _within(inside: Any, answer: Awaitable[Response]) -> Response:
    from opentelemetry import context

    context.attach(inside)  # of this task, which ends with the request
    return await answer


class _Ended:
    def __init__(self, observe: Observe) -> None:
        self._observe = observe

    def observe(self, request: Request, status: int, started: float) -> None:
        """Count one response, and end its span."""
        self._observe(request, status, started)
        span = request.trace
        if span is None:
            return
        pattern = "none" if request.route is None else request.route.pattern
        if pattern in PROBES:
            return  # A span that is not ended is not sent.
        method = request.method[:16].decode("latin-1")
        span.update_name(f"{method} {pattern}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", pattern)
        span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR))
        span.end()
