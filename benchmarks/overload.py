"""Measure goodput under overload: good answers in time, at 1 to 10 times what the server can do.

    python -m benchmarks.overload [SECONDS]

A model of some milliseconds a row is asked one row at a time, at a rate that does not wait for
answers, directly and through the gateway, with time-outs of 100 and 500 ms. An answer is good if it
is a prediction and arrives within the time-out. The share of good answers is that of the peak with
the same time-out, or of what was sent if that is less. Writes ``benchmarks/results/overload.json``
and its section of ``docs/figures-serving.md``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from onnx import TensorProto, helper

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
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
    began = time.perf_counter()
    session.run(None, rows)
    layer = (time.perf_counter() - began) / 32 / 20
    return chain(max(5, round(ROW_SECONDS / layer)))


class Load:
    """Clients of one server, each asking once at a time on a connection of its own."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._port = port
        self._timeout = timeout_seconds
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._request = (
            b"POST /v2/models/heavy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
        )

    async def at_rate(self, rate: float, seconds: float) -> dict[str, float]:
        """Ask at this rate; return answers a second by kind."""
        seen: Counter[str] = Counter()
        tasks: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        sent = 0
        while (elapsed := time.monotonic() - began) < seconds:
            for _ in range(int(rate * elapsed) - sent):
                tasks.add(task := asyncio.create_task(self._once(seen)))
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        return {kind: seen[kind] / seconds for kind in ("good", "refused", "late", "other")} | {
            "sent": sent / seconds
        }

    async def capacity(self, clients: int, seconds: float) -> float:
        """Return the answers a second that so many clients get who ask again and again."""
        seen: Counter[str] = Counter()
        end = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                await self._once(seen)

        await asyncio.gather(*(client() for _ in range(clients)))
        return seen["good"] / seconds

    async def _once(self, seen: Counter[str]) -> None:
        writer = None
        try:
            async with asyncio.timeout(self._timeout):
                if self._idle:
                    reader, writer = self._idle.pop()
                else:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            seen["late" if isinstance(error, TimeoutError) else "other"] += 1
            if writer is not None:
                writer.transport.abort()
            return
        self._idle.append((reader, writer))
        status = int(head[9:12])
        seen[{200: "good", 503: "refused", 504: "late"}.get(status, "other")] += 1


def main() -> None:
    """Measure, print and write down."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    model = calibrated()
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fourways-overload-") as folder:
        for timeout in TIMEOUTS:
            points += _measure(Path(folder), model, timeout, seconds)
    for timeout in TIMEOUTS:
        curve = [point for point in points if point["timeout"] == timeout]
        peak = max(point["good"] for point in curve)
        for point in curve:
            point["share"] = point["good"] / min(peak, point["sent"])
    told = {"row_seconds": ROW_SECONDS, "seconds": seconds, "points": points}
    RESULTS.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
    table = _table(points)
    page = PAGE.read_text("utf-8").partition(HEADING)[0].rstrip()
    PAGE.write_text(f"{page}\n\n{HEADING}\n\n{table}\n", "utf-8")
    print(table)


def _measure(folder: Path, model: bytes, timeout: float, seconds: float) -> list[dict[str, Any]]:
    where = folder / f"{timeout:g}"
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
            "timeoutSeconds": timeout,
            "paths": paths.to_json(),
        }
    )
    route = Route(
        deployment="heavy",
        mode="realtime",
        version="1",
        timeout_seconds=timeout,
        url=f"http://127.0.0.1:{server}",
    )
    forward = GatewayConfig(
        namespace="bench", host="127.0.0.1", port=gateway, routes=(route,), paths=paths
    )
    points = []
    with (
        running("serve", serve.model_dump_json(by_alias=True), f"http://127.0.0.1:{server}"),
        running("gateway", forward.model_dump_json(by_alias=True), f"http://127.0.0.1:{gateway}"),
    ):
        asyncio.run(Load(server, 5.0).capacity(4, 2.0))  # what it takes is measured by then
        capacity = asyncio.run(Load(server, timeout).capacity(8, seconds))
        for way, port in (("direct", server), ("gateway", gateway)):
            for load in LOADS:
                seen = asyncio.run(Load(port, timeout).at_rate(load * capacity, seconds))
                points.append({"way": way, "timeout": timeout, "load": load, **seen})
                print(points[-1], file=sys.stderr, flush=True)
    return points


def _table(points: list[dict[str, Any]]) -> str:
    lines = [
        f"`make bench-overload`: a model of {ROW_SECONDS * 1000:g} ms a row is asked one row at a"
        " time at a fixed rate,",
        f"on {os.cpu_count()} cores that server, gateway and clients share. Good is a prediction"
        " within the time-out; the share",
        "is that of the peak with the same time-out, or of what was sent if that is less.",
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
