"""``python -m benchmarks.quality``: what past predictions and their comparison with labels cost.

All figures are processor time, or ratios of it, so other load on the machine has little effect. The
statement's time is that of the server, and that of the worker's thread that sends it. It is set
beside the time that the whole worker needs for an event (``make bench-streaming``).
"""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import thread_time

import numpy as np
from prometheus_client import CollectorRegistry

from fourways_api import Contract
from fourways_api.runtime_config import ServerConfig
from fourways_http import Response
from fourways_runtime.io.store import StreamDeclaration, open_database, open_stream_writer
from fourways_runtime.io.store.database import Database
from fourways_runtime.io.store.past import Compared, past_batches
from fourways_runtime.io.store.streams.stream import Move, StreamWriter
from fourways_runtime.scoring.columns import Predictions
from fourways_runtime.scoring.late_truth import labelled
from fourways_runtime.v2.batcher import Render
from fourways_runtime.v2.parts import ScoredPart
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.workloads.serving.recording import ROOM, AnswerRecorder
from tools.servers.postgres import Server, running

KEYS = 100_000
BATCH = 256
BATCHES = 400
ROUNDS = 9
LABELS = 100_000
EVENT_SECONDS = 1 / 86_280
"""Processor time of the whole worker for one event, in micro-batches of 256."""

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float32"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


def main() -> None:
    """Measure and print."""
    with running() as server:
        uri = server.database()
        sent: dict[str | None, list[tuple[float, float]]] = {None: [], "y": []}
        for _ in range(ROUNDS):
            for compared, found in sent.items():
                found.append(_written(server, uri, compared))
        client, database = (
            (median(t[at] for t in sent[None]), median(t[at] for t in sent["y"])) for at in (0, 1)
        )
        for who, (without, with_past) in (("worker", client), ("database", database)):
            more = (with_past - without) / (BATCH * BATCHES)
            print(
                f"{who}: {without / BATCHES * 1e6:.0f} µs a statement of {BATCH} predictions, "
                f"{with_past / BATCHES * 1e6:.0f} µs with past predictions; "
                f"{more / EVENT_SECONDS:.1%} of the worker's time for an event"
            )
        _compared(uri)
    _noted()


def _written(server: Server, uri: str, compared: str | None) -> tuple[float, float]:
    """Return the processor time of client and server (s) for all batches."""
    random = np.random.default_rng(1)
    name = "with" if compared else "without"
    kept = Compared(compared) if compared else None
    declared = StreamDeclaration("n", name, "v1", "sha256:1", CONTRACT, "k", compared=kept)
    batches = [_predictions(random) for _ in range(BATCHES)]
    with closing(open_stream_writer(uri, declared)) as writer:
        start = writer.positions({0: 0})[0].next
        writer.begin({0: start})
        before = _processor_seconds(server)
        began = thread_time()
        for batch in batches:
            _send(writer, start, batch)
            start += BATCH
        client = thread_time() - began
        return client, _processor_seconds(server) - before


def _noted() -> None:
    """Print what a request costs whose answer is stored, on the thread that renders it."""
    document = {
        "namespace": "n",
        "name": "m",
        "model": {"uri": "pvc://models/m.onnx", "version": "1"},
        "contract": CONTRACT.to_json(),
        "stored": {"output": "y", "share": "100%"},
    }
    config = ServerConfig.model_validate(document)
    part = ScoredPart({"y": np.zeros(1, np.float32)}, 0, 1, {})
    requests = [
        InferenceRequest(1, None, None, False, [f"entity{at:05d}"], None, {}) for at in range(ROOM)
    ]
    without = min(_rendered(lambda asked, scored: _ANSWER, requests, part) for _ in range(ROUNDS))
    found = []
    for _ in range(ROUNDS):
        recorder = AnswerRecorder(config, _no_store, CollectorRegistry())
        found.append(_rendered(recorder.recording(lambda a, s: _ANSWER), requests, part))
    print(f"model server: {(min(found) - without) * 1e6:.2f} µs more for a request with a key")


_ANSWER = Response(b"")


def _no_store() -> Database:
    raise AssertionError("nothing is written here")


def _rendered(render: Render, requests: list[InferenceRequest], part: ScoredPart) -> float:
    """Return the processor time (s) of one request."""
    began = thread_time()
    for asked in requests:
        render(asked, part)
    return (thread_time() - began) / len(requests)


def _send(writer: StreamWriter, start: int, batch: Predictions) -> None:
    writer.send([Move(0, start, start + BATCH)], batch)
    writer.receive()


def _predictions(random: np.random.Generator) -> Predictions:
    keys = np.empty(BATCH, object)
    keys[:] = [f"entity{number:05d}" for number in random.integers(0, KEYS, BATCH)]
    return Predictions(keys, np.arange(BATCH), {"y": random.random(BATCH).astype(np.float32)})


def _processor_seconds(server: Server) -> float:
    """Return the processor time that the server's processes have used, also those that ended."""
    assert server.process_id is not None
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(folder.name) == server.process_id:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == server.process_id:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _compared(uri: str) -> None:
    random = np.random.default_rng(2)
    keys = np.empty(LABELS, object)
    keys[:] = [f"entity{number:05d}" for number in random.integers(0, KEYS, LABELS)]
    now = datetime.now(UTC)
    times = np.full(LABELS, int(now.timestamp() * 1e6))
    with closing(open_database(uri)) as store:
        began = thread_time()
        since = now - timedelta(days=1)
        predictions, _ = labelled(past_batches(store, "n", "with", "y", since), keys, times)
        took = thread_time() - began
    kept = BATCH * BATCHES * ROUNDS
    print(
        f"a comparison of {LABELS:,} labels with {kept:,} predictions: {took:.2f} s, "
        f"{took / kept * 1e6:.2f} µs each; {len(predictions):,} pairs"
    )


if __name__ == "__main__":
    main()
