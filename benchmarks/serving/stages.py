"""``python -m benchmarks.serving.stages``: CPU time of a request by stage, without sockets.

Real bytes go through the real protocol of real connections, all in this process; only the transport
is simulated. The result is the thread's CPU time, the best of many rounds, so other load on the
machine has little effect and a change of one microsecond is visible. Sockets and system calls are
not included.
"""

# ruff: noqa: E402  (as in the server, numpy is told before it is imported)
from __future__ import annotations

from fourways_runtime.v2.simd import prefer_narrow_loops

prefer_narrow_loops()

import argparse
import asyncio
import gc
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import thread_time
from typing import Any

import httptools
import numpy as np
import onnxruntime

from fourways_api.runtime_config import ServerConfig
from fourways_http import Limits, Request, Response, Router, Server
from fourways_http.protocol import Connection
from fourways_runtime.metrics import HttpMetrics
from fourways_runtime.process import loop_factory, new_registry
from fourways_runtime.v2.batcher import Batcher
from fourways_runtime.v2.parts import ScoredPart
from fourways_runtime.workloads.serving import loading, shell

from . import work

TARGET = b"/v2/models/model/infer"
CLIENTS = 16


class Done:
    """A call that is done."""

    def __init__(self, result: object) -> None:
        self._result = result

    def cancelled(self) -> bool:
        """Tell that it was not cancelled."""
        return False

    def result(self) -> object:
        """Return what it returned."""
        return self._result

    def add_done_callback(self, tell: Callable[[Any], object]) -> None:
        """Call at once."""
        tell(self)


class Turns:
    """The event loop methods that the batcher uses."""

    def __init__(self) -> None:
        self._next: list[Callable[[], object]] = []

    def call_soon(self, do: Callable[[], object]) -> None:
        """Run the callback in the next turn."""
        self._next.append(do)

    def run_in_executor(self, executor: object, do: Callable[..., object], *args: object) -> Done:
        """Do it now."""
        return Done(do(*args))

    def run(self) -> None:
        """Run turns until no callback is left."""
        while self._next:
            due, self._next = self._next, []
            for do in due:
                do()


class Wire(asyncio.Transport):
    """A transport without a peer; it counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Count a response, which must be successful."""
        assert bytes(data[:15]) == b"HTTP/1.1 200 OK", bytes(data)
        self.answers += 1

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Report that the transport is open."""
        return False


def main() -> None:
    """Print µs per request for each stage."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.serving.stages")
    asked.add_argument("--rounds", type=int, default=15)
    asked.add_argument("--rows", type=int, default=1, choices=list(work.BODIES))
    asked.add_argument("--binary", action="store_true")
    options = asked.parse_args()
    os.environ.pop("FOURWAYS_CONFIG", None)
    with (
        tempfile.TemporaryDirectory(prefix="fourways-stages-") as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        stages = runner.run(_stages(Path(folder), options.rows, options.binary, options.rounds))
    for name, seconds in stages.items():
        print(f"{name:38} {seconds * 1e6:8.2f} µs")


async def _stages(folder: Path, rows: int, binary: bool, rounds: int) -> dict[str, float]:
    file = folder / "model.onnx"
    file.write_bytes(work.forest())
    config = ServerConfig.model_validate(
        {
            "namespace": "bench",
            "name": "model",
            "model": {"uri": file.as_uri(), "version": "v1"},
            "contract": work.CONTRACT,
            "paths": {"cacheDir": str(folder / "cache"), "terminationLog": str(folder / "words")},
        }
    )
    registry = new_registry()
    server, app = shell.build(config, registry)
    loaded = loading.load_model(config)
    batcher = Batcher(
        loaded.scorer,
        loaded.renderer,
        app.metrics,
        max_rows=config.max_batch_rows,
        warm_up=loaded.warm_up,
        proven=True,
    )
    turns = Turns()
    batcher._loop = turns  # type: ignore[assignment]
    app.use(loaded.reader, batcher)
    made = work.questions(rows, binary=binary)
    raws = [_wire(question) for question in made]
    requests = [Request(b"POST", TARGET, _headers(q), q.body) for q in made]
    gc.collect()
    gc.freeze()
    found: dict[str, float] = {}
    for clients in (1, CLIENTS):
        name = f"whole, {clients} at once"
        found[name] = _whole(server, turns, raws, clients, rounds)
    found["http, empty handler"] = _whole(_empty(), turns, raws, CLIENTS, rounds)
    found["  parser alone"] = _best(lambda: _parsed(raws), len(raws), rounds)
    found["read"] = _best(lambda: [loaded.reader.take(r) for r in requests], len(made), rounds)
    questions = [loaded.reader.take(request) for request in requests]
    for together in (1, CLIENTS):
        groups = [questions[at : at + together] for at in range(0, len(questions), together)]
        name = f"score, {together} at once"
        found[name] = _best(partial(_each, loaded.scorer.score, groups), len(made), rounds)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file.read_bytes(), options)
        blocks = [
            {"input": np.concatenate([q.values for q in made[at : at + together]])}
            for at in range(0, len(made), together)
        ]
        run = partial(_each, partial(session.run, None), blocks)
        found[f"  bare model, {together} at once"] = _best(run, len(made), rounds)
    parts = loaded.scorer.score(questions[:CLIENTS])
    pairs = [
        (question, part)
        for question, part in zip(questions[:CLIENTS], parts, strict=True)
        if isinstance(part, ScoredPart)
    ] * 16
    found["answer"] = _best(lambda: [loaded.renderer(*p) for p in pairs], len(pairs), rounds)
    batcher.close()
    return found


def _headers(question: work.Question) -> list[tuple[bytes, bytes]]:
    """Return the headers that wrk sends."""
    headers = [(b"Host", b"127.0.0.1:8080"), (b"content-type", b"application/json")]
    if question.header_length is not None:
        headers[1] = (b"content-type", b"application/octet-stream")
        length = str(question.header_length).encode()
        headers.append((b"inference-header-content-length", length))
    return [*headers, (b"Content-Length", str(len(question.body)).encode())]


def _wire(question: work.Question) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in _headers(question)]
    return b"".join((b"POST ", TARGET, b" HTTP/1.1\r\n", *lines, b"\r\n", question.body))


def _empty() -> Server:
    router = Router()
    answer = Response(b'{"outputs":[]}')
    router.add("POST", "/v2/models/{model}/infer", lambda request: answer)
    return Server(router, Limits(), HttpMetrics(new_registry()).observe)


def _whole(server: Server, turns: Turns, raws: list[bytes], clients: int, rounds: int) -> float:
    wires = [Wire() for _ in range(clients)]
    connections = [Connection(server.state) for _ in range(clients)]
    for connection, wire in zip(connections, wires, strict=True):
        connection.connection_made(wire)
    best = float("inf")
    asked = 0
    for _ in range(rounds):
        feed = iter(raws)
        began = thread_time()
        while together := list(islice(feed, clients)):
            for connection, raw in zip(connections, together, strict=False):
                connection.data_received(raw)
            turns.run()
        best = min(best, (thread_time() - began) / len(raws))
        asked += len(raws)
    answered = sum(wire.answers for wire in wires)
    assert answered == asked, (answered, asked)
    return best


class _Nothing:
    """Ignores the parser's callbacks."""


def _parsed(raws: list[bytes]) -> None:
    parser = httptools.HttpRequestParser(_Nothing())
    for raw in raws:
        parser.feed_data(raw)


def _each(do: Callable[[Any], object], many: list[Any]) -> None:
    for one in many:
        do(one)


def _best(do: Callable[[], object], count: int, rounds: int) -> float:
    best = float("inf")
    for _ in islice(cycle((None,)), rounds):
        began = thread_time()
        do()
        best = min(best, (thread_time() - began) / count)
    return best


if __name__ == "__main__":
    main()
