"""Traces reach a collector over OTLP, hang together, and tell nothing that requests were about."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fourways_api import Route, parse
from fourways_operator import planning
from fourways_operator.options import options_of, settings_of
from fourways_runtime import tracing
from fourways_runtime.tracing import event_headers, start_tracing, stop_tracing
from tests.kit.gateway_plane import running
from tests.kit.mode_facts import deployment
from tests.kit.serving_plane import configure, serving, tensor
from tests.kit.stream_worker import Memory, Rig
from tools.kit.models import LINEAR, linear

CANARY = "c4n4ry"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INPUTS = [
    tensor("age", "INT32", [30]),
    tensor("spend", "FP32", [2]),
    tensor("rate", "FP32", [1]),
]


class Collector:
    """An OTLP receiver: it parses what is posted with the protocol's own messages."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.raw += body
                found = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                for resource in found.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def received(self) -> dict[str, Any]:
        """Return the spans by name, once everything has been sent."""
        stop_tracing()
        return {span.name: span for span in self.spans}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    assert start_tracing("fourways-test") is not None
    yield found
    stop_tracing()
    found.close()


async def test_a_trace_goes_from_the_client_through_gateway_and_model_server(
    tmp_path: Path, collector: Collector
) -> None:
    async with serving(configure(tmp_path, linear(), LINEAR)) as server:
        url = str(server.client.base_url)
        route = Route(deployment="churn", mode="realtime", version="v1", url=url)
        async with running(tmp_path, routes=(route,)) as plane:
            for number in range(3):  # the head is known from the second on
                answer = await plane.client.post(
                    f"/v2/models/churn/infer?{CANARY}=1",
                    json={"inputs": INPUTS, "id": CANARY},
                    headers={"traceparent": f"00-{TRACE}-{PARENT[:-1]}{number}-01"},
                )
                assert answer.status_code == 200
            await plane.client.get("/v2/health/live")
    collector.received()
    spans = {span.span_id: span for span in collector.spans}
    inner = [s for s in collector.spans if s.name == "POST /v2/models/{model}/infer"]
    assert (len(spans), len(inner)) == (6, 3)
    parents = set()
    for span in inner:
        outer = spans[span.parent_span_id]
        assert outer.name == "POST /v2/models/{deployment}/infer"
        assert {span.trace_id.hex(), outer.trace_id.hex()} == {TRACE}
        parents.add(outer.parent_span_id.hex())
    assert parents == {f"{PARENT[:-1]}{number}" for number in range(3)}
    assert CANARY.encode() not in collector.raw


async def test_a_lookup_is_a_stage_and_its_key_is_not_told(
    tmp_path: Path, collector: Collector
) -> None:
    async with running(tmp_path) as plane:
        answer = await plane.client.get(f"/predictions/churn/c1?x={CANARY}")
        assert answer.status_code == 200
        missing = await plane.client.get(f"/predictions/churn/{CANARY}")
        assert missing.status_code == 404
    collector.received()
    outer = [s for s in collector.spans if s.name == "GET /predictions/{deployment}/{key}"]
    stages = [span for span in collector.spans if span.name == "store"]
    assert {s.parent_span_id for s in stages} == {s.span_id for s in outer}
    assert len(outer) == 2
    told = {a.key: a.value for a in outer[0].attributes}
    assert told["http.response.status_code"].int_value == 200
    assert CANARY.encode() not in collector.raw


async def test_an_event_continues_the_trace(collector: Collector) -> None:
    with tracing.stage("publish"):
        told = event_headers()
    span = collector.received()["publish"]
    assert told["traceparent"].decode().split("-")[1:3] == [
        span.trace_id.hex(),
        span.span_id.hex(),
    ]


def test_a_stream_worker_continues_the_trace_of_an_event_until_it_is_written(
    tmp_path: Path, collector: Collector
) -> None:
    source = Memory([1, 2, 13, 4], [5])
    source.headers_of[0, 1] = (("traceparent", f"00-{TRACE}-{PARENT}-01".encode()),)
    source.headers_of[0, 2] = (("traceparent", f"00-{TRACE}-{PARENT[:-1]}8-01".encode()),)
    source.headers_of[1, 0] = (("traceparent", b"no parent"),)
    Rig(tmp_path).work(source, maxAttempts=1)  # 13 becomes a dead letter, scored one by one
    collector.received()
    found = {span.parent_span_id.hex(): span for span in collector.spans}
    assert found.keys() == {PARENT, f"{PARENT[:-1]}8"}, "events without a trace have no span"
    assert len(collector.spans) == 2, "an event that is scored again has one span"
    for span in collector.spans:
        assert (span.name, span.trace_id.hex()) == ("process event", TRACE)
        assert span.end_time_unix_nano > span.start_time_unix_nano
    codes = {parent: span.status.code for parent, span in found.items()}
    assert codes == {PARENT: 0, f"{PARENT[:-1]}8": 2}, "a dead letter is an error"
    assert b"thirteen" not in collector.raw


async def test_without_a_collector_nothing_is_loaded_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start_tracing("x") is None
    assert event_headers() == {}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert start_tracing("x") is None
    app, observe = object(), object()
    assert tracing.with_tracing(app, observe) == (app, observe)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["realtime", "streaming"])
def test_the_setting_reaches_what_answers_with_the_collectors_port(mode: str) -> None:
    options = options_of(["--tracing-endpoint", "http://collector:4318", "--tracing-ratio", "0.1"])
    settings = settings_of(options)
    assert 4318 in settings.egress_ports
    planned = json.dumps(planning.plan(parse(deployment(mode)), settings))
    assert '"OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"' in planned
    assert '"OTEL_TRACES_SAMPLER_ARG", "value": "0.1"' in planned
    assert '"value": "k8s.namespace.name=demo"' in planned
    assert "OTEL" not in json.dumps(
        planning.plan(parse(deployment("realtime")), settings_of(options_of([])))
    )
