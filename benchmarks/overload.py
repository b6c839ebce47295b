"""Measure goodput under overload: good answers in time, at 1 to 10 times what the server can do.

    python -m benchmarks.overload [SECONDS]

A model of some milliseconds a row is asked one row at a time, at a rate that does not wait for
answers, directly and through the gateway, with time-outs of 100 and 500 ms. An answer is good if it
is a prediction and arrives within the time-out. The share of good answers is that of the peak with
the same time-out, or of what was sent if that is less. Server and gateway are compiled as in the
image. Writes ``benchmarks/results/overload.json`` and its section of ``docs/figures-serving.md``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import numpy as np
import onnxruntime
import orjson
from onnx import TensorProto, helper

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from fourways_runtime.process import loop_factory
from tools.compiled import overlay
from tools.kit.models import onnx_bytes

from .gateway import running

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "overload.json"
PAGE = ROOT / "docs" / "figures-serving.md"
HEADING = "## Under overload"

ROW_SECONDS = 0.005
WIDTH = 1024
TIMEOUTS = (0.1, 0.5)
LOADS = (1, 2, 5, 10)
ROUNDS = 3
KINDS = ("good", "refused", "late", "other")
_KINDS = {200: "good", 503: "refused", 504: "late"}
BODY = orjson.dumps(
    {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
)
CONTRACT: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": name, "type": "float32"} for name in "abcd"],
    "outputs": [{"name": "out", "type": "float32"}],
}


def chain(layers: int) -> bytes:
    """Return a model whose time is that of its rows times its layers."""
    weights = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    matrix = weights.astype(np.float32)
    nodes = [helper.make_node("MatMul", ["X", "A"], ["h0"])]
    for at in range(layers):
        nodes.append(helper.make_node("MatMul", [f"h{at}", "W"], [f"m{at}"]))
        nodes.append(helper.make_node("Tanh", [f"m{at}"], [f"h{at + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"h{layers}"], ["out"], axes=[1], keepdims=1))
    return onnx_bytes(
        nodes,
        [("X", TensorProto.FLOAT, ["N", 4])],
        [("out", TensorProto.FLOAT, ["N", 1])],
        [("W", matrix), ("A", matrix[:4])],
    )


def calibrated() -> bytes:
    """Return a model of about :data:`ROW_SECONDS` a row in batches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(chain(20), options)
    rows = {"X": np.ones((32, 4), np.float32)}
    session.run(None, rows)
    began = perf_counter()
    session.run(None, rows)
    layer = (perf_counter() - began) / 32 / 20
    return chain(max(5, round(ROW_SECONDS / layer)))


class Client(asyncio.Protocol):
    """A connection that asks once at a time, as cheaply as Python can: it shares the cores."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self._due = 0.0
        self._done: Callable[[Client, str], None] | None = None

    def ask(self, due: float, done: Callable[[Client, str], None]) -> None:
        """Ask, on a connection that may still be opened; ``done`` is told what came of it."""
        self._due, self._done = due, done
        if self._transport is not None:
            self._transport.write(self._request)

    def give_up(self, due: float) -> None:
        """End the connection if the request due at this time has no answer yet."""
        if self._due == due and self._done is not None:
            self.close()
            self._end("late")

    def failed(self) -> None:
        """Take it that there is no connection."""
        self._end("other")

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def connected(self) -> bool:
        """Whether it can ask again."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request that the connection was opened for."""
        self._transport = cast(asyncio.Transport, transport)
        if self._done is None:
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take it that there is no answer."""
        self._end("other")

    def data_received(self, data: bytes) -> None:
        """Take a response that is complete."""
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if end and len(body) == int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            self._read = b""
            self._end(_KINDS.get(int(head[9:12]), "other"))

    def _end(self, kind: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self, kind)


class Load:
    """Clients of one server, each asking once at a time on a connection of its own."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._port = port
        self._timeout = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: list[Client] = []
        self._asked: deque[tuple[float, Client]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._seen: Counter[str] = Counter()
        self._request = (
            b"POST /v2/models/heavy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
        )

    async def at_rate(self, rate: float, seconds: float) -> dict[str, float]:
        """Ask at this rate; return answers a second by kind."""
        began = self._loop.time()
        sent = 0
        while (elapsed := self._loop.time() - began) < seconds:
            for _ in range(int(rate * elapsed) - sent):
                self._ask(self._answered)
                sent += 1
            await self._moment()
        while self._seen.total() < sent:
            await self._moment()
        self._close()
        return {kind: self._seen[kind] / seconds for kind in KINDS} | {"sent": sent / seconds}

    async def capacity(self, clients: int, seconds: float) -> float:
        """Return the answers a second that so many clients get who ask again and again."""
        end = self._loop.time() + seconds

        def again(client: Client, kind: str) -> None:
            self._answered(client, kind)
            if self._loop.time() < end:
                self._ask(again)

        for _ in range(clients):
            self._ask(again)
        while self._loop.time() < end + self._timeout:
            await self._moment()
        self._close()
        return self._seen["good"] / seconds

    async def _moment(self) -> None:
        await asyncio.sleep(0.002)
        now = self._loop.time()
        while self._asked and self._asked[0][0] < now:
            due, client = self._asked.popleft()
            client.give_up(due)

    def _ask(self, done: Callable[[Client, str], None]) -> None:
        due = self._loop.time() + self._timeout
        known = bool(self._idle)
        client = self._idle.pop() if known else Client(self._request)
        self._asked.append((due, client))
        client.ask(due, done)
        if not known:
            self._opening.add(task := self._loop.create_task(self._open(client)))
            task.add_done_callback(self._opening.discard)

    async def _open(self, client: Client) -> None:
        try:
            await self._loop.create_connection(lambda: client, "127.0.0.1", self._port)
        except OSError:
            client.failed()

    def _close(self) -> None:
        for client in self._idle:
            client.close()

    def _answered(self, client: Client, kind: str) -> None:
        self._seen[kind] += 1
        if client.connected:
            self._idle.append(client)


def main() -> None:
    """Measure, print and write down."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    model = calibrated()
    os.environ["PYTHONPATH"] = str(overlay())  # As in the image, with the hot path compiled.
    points: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="fourways-overload-") as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        for timeout in TIMEOUTS:
            points += runner.run(_measure(Path(folder), model, timeout, seconds))
    for timeout in TIMEOUTS:
        curve = [point for point in points if point["timeout"] == timeout]
        peak = max(point["good"] for point in curve)
        for point in curve:
            point["share"] = point["good"] / min(peak, point["sent"])
    told = {"row_seconds": ROW_SECONDS, "seconds": seconds, "rounds": ROUNDS, "points": points}
    RESULTS.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
    table = _table(points)
    page = PAGE.read_text("utf-8").partition(HEADING)[0].rstrip()
    PAGE.write_text(f"{page}\n\n{HEADING}\n\n{table}\n", "utf-8")
    print(table)


async def _measure(
    folder: Path, model: bytes, limit: float, seconds: float
) -> list[dict[str, Any]]:
    where = folder / f"{limit:g}"
    where.mkdir()
    (where / "heavy.onnx").write_bytes(model)
    server, gateway = free_port(), free_port()
    paths = Paths(
        cache_dir=str(where / "cache"),
        termination_log=str(where / "words"),
        store_uri_file=str(where / "store-secret" / "uri"),
    )
    (where / "store-secret").mkdir(exist_ok=True)
    (where / "store-secret" / "uri").write_text(f"sqlite:///{where}/store.db")
    serve = ServerConfig.model_validate(
        {
            "namespace": "bench",
            "name": "heavy",
            "host": "127.0.0.1",
            "port": server,
            "model": {"uri": (where / "heavy.onnx").as_uri(), "version": "1"},
            "contract": CONTRACT,
            "timeoutSeconds": limit,
            "paths": paths.to_json(),
        }
    )
    route = Route(
        deployment="heavy",
        mode="realtime",
        version="1",
        timeout_seconds=limit,
        url=f"http://127.0.0.1:{server}",
    )
    forward = GatewayConfig(
        namespace="bench", host="127.0.0.1", port=gateway, routes=(route,), paths=paths
    )
    rounds: list[list[dict[str, Any]]] = []
    with (
        running("serve", serve.model_dump_json(by_alias=True), f"http://127.0.0.1:{server}"),
        running("gateway", forward.model_dump_json(by_alias=True), f"http://127.0.0.1:{gateway}"),
    ):
        await Load(server, 5.0).capacity(4, 2.0)  # what it takes is measured by then
        capacity = await Load(server, limit).capacity(8, seconds)
        for _ in range(ROUNDS):
            points: list[dict[str, Any]] = []
            rounds.append(points)
            for way, port in (("direct", server), ("gateway", gateway)):
                for load in LOADS:
                    seen = await Load(port, limit).at_rate(load * capacity, seconds)
                    points.append({"way": way, "timeout": limit, "load": load, **seen})
                    print(points[-1], file=sys.stderr, flush=True)
    return [
        {**same[0], **{kind: median(each[kind] for each in same) for kind in (*KINDS, "sent")}}
        for same in zip(*rounds, strict=True)
    ]


def _table(points: list[dict[str, Any]]) -> str:
    lines = [
        f"`make bench-overload`: a model of {ROW_SECONDS * 1000:g} ms a row is asked one row at a"
        " time at a fixed rate,",
        f"on {os.cpu_count()} cores that server, gateway and clients share; server and gateway are"
        " compiled as in the image. Good is",
        "a prediction within the time-out; the share is that of the peak with the same time-out, or"
        " of what was sent if",
        f"that is less. Each figure is the median of {ROUNDS} rounds with all points in each.",
        "",
        "| way, time-out | load | sent/s | good/s | share | 503/s | late/s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {point['way']}, {point['timeout'] * 1000:g} ms | {point['load']} x |"
        f" {point['sent']:.0f} | {point['good']:.0f} | {point['share']:.0%} |"
        f" {point['refused']:.0f} | {point['late']:.0f} |"
        for point in points
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
