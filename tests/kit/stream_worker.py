"""A stream worker on a source in memory, with a model of ours and a store in SQLite."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_api.runtime_config import StreamConfig
from fourways_runtime.errors import BrokerUnavailable, ModelError, StoreUnavailable
from fourways_runtime.io.brokers.source import (
    Events,
    LogBounds,
    PartitionListener,
)
from fourways_runtime.io.store import (
    StreamDeclaration,
    StreamWriter,
    open_reader,
    open_stream_writer,
)
from fourways_runtime.io.store.streams.stream import Position
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.workloads.streaming.ledger import StreamLedger
from fourways_runtime.workloads.streaming.observed import StreamMetrics
from fourways_runtime.workloads.streaming.scoring import EventScorer
from fourways_runtime.workloads.streaming.worker import StreamWorker
from tests.kit.waiting import until


class Failing:
    """A store whose commits fail a number of times, and notes when it was asked where it stands.

    ``committed``: whether the commits succeed, and only their confirmation is lost.
    """

    def __init__(
        self, writer: StreamWriter, error: StoreUnavailable, times: int, *, committed: bool = False
    ) -> None:
        self._writer = writer
        self._error = error
        self.left = times
        self.asked = 0
        self._committed = committed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        self.asked += 1
        return self._writer.positions(partitions)

    def send(self, *what: Any, attempts: int) -> None:
        if not self._committed:
            self._fail()
        self._writer.send(*what, attempts=attempts)

    def receive(self) -> None:
        self._writer.receive()
        if self._committed:
            self._fail()

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise self._error


CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float64"}],
        "outputs": [{"name": "y", "type": "float64"}],
    }
)


class Doubling:
    """A model: y = 2 x. It fails on 13, shows a bug of ours on 14, and notes what it was given."""

    inputs: tuple[Tensor, ...] = (Tensor("x", "float64", (None,)),)
    outputs: tuple[Tensor, ...] = (Tensor("y", "float64", (None,)),)

    def __init__(self) -> None:
        self.given: list[list[float]] = []

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        self.given.append(tensors["x"].reshape(-1).tolist())
        if (tensors["x"] == 13).any():
            raise ModelError("thirteen")
        if (tensors["x"] == 14).any():
            raise AttributeError("not the model's")
        return {"y": tensors["x"].reshape(-1) * 2}


class Memory:
    """A source of two partitions; ``failure`` ends it. None as a value is a tombstone."""

    identity = "memory"

    def __init__(self, *partitions: Sequence[float]) -> None:
        self.values: list[list[float]] = [list(values) for values in partitions]
        self.at: dict[int, int] = {}
        self.failure: Exception | None = None
        self.closed = False
        self.oldest = self.away = 0
        self.ends: dict[int, int] = {}
        """Where the log ends, if some positions behind the last event hold none."""

        self.key_of: dict[tuple[int, int], bytes] = {}
        self.question_of: dict[tuple[int, int], bytes] = {}
        self.headers_of: dict[tuple[int, int], tuple[tuple[str, bytes], ...]] = {}
        """Headers of events beside the one that each has."""

        self.once: Exception | None = None
        """What the next poll raises."""

    def open(self, seconds: float) -> None: ...

    def start(self, listener: PartitionListener) -> None:
        self.at = dict(listener.assigned(range(len(self.values))))

    def bounds(self, partition: int) -> LogBounds:
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("away")
        return LogBounds(self.oldest, len(self.values[partition]))

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        if self.failure is not None:
            raise self.failure
        if self.once is not None:
            error, self.once = self.once, None
            raise error
        places = [
            (partition, position)
            for partition, start in self.at.items()
            for position in range(max(start, self.oldest), len(self.values[partition]))
        ][:most]
        if not places:
            time.sleep(0.001)
            return None
        for partition, position in places:
            self.at[partition] = position + 1
        keys = [self.key_of.get(place, b"%d-%d" % place) for place in places]
        found = [self.values[p][at] for p, at in places]
        values = [None if value is None else b'{"x": %r}' % value for value in found]
        partitions, positions = zip(*places, strict=True)
        asked = {at: self.question_of.get(place, b"") for at, place in enumerate(places)}
        questions = {at: question for at, question in asked.items() if question}
        headers = lambda at: (("n", b"%d" % at), *self.headers_of.get(places[at], ()))  # noqa: E731
        return Events(partitions, positions, keys, values, headers, asked=lambda: questions)

    def read_up_to(self) -> Mapping[int, int]:
        ends, self.ends = self.ends, {}
        return ends

    def idle(self, seconds: float) -> None: ...

    def held(self) -> Sequence[int]:
        return list(self.at)

    def seek(self, positions: Mapping[int, int]) -> None:
        self.at.update(positions)

    def passed(self, positions: Mapping[int, int]) -> None: ...

    def newest(self) -> Mapping[int, int]:
        return {partition: len(values) for partition, values in enumerate(self.values)}

    def check(self) -> None: ...

    def problem(self) -> str:
        return "" if self.failure is None else str(self.failure)

    def close(self) -> None:
        self.closed = True


class Rig:
    """A worker in a thread, its store and what it left there."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/store.db"
        self.wrap: Callable[[StreamWriter], StreamWriter] = lambda writer: writer
        self.metrics = StreamMetrics(CollectorRegistry())
        self.model = Doubling()
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def writer(self) -> StreamWriter:
        stream = StreamDeclaration("n", "d", "v1", "sha256:0", CONTRACT, "memory")
        return open_stream_writer(self.uri, stream)

    def start(self, source: Memory, **streaming: Any) -> None:
        config = StreamConfig.model_validate(
            {
                "namespace": "n",
                "name": "d",
                "contract": CONTRACT.to_json(),
                "model": {"uri": "file:///m", "version": "v1", "format": "onnx"},
                "streaming": {
                    "source": {"kafka": {"bootstrapServers": "a:1", "topic": "t"}},
                    "microBatch": {"maxEvents": 4, "maxDelay": "1ms"},
                    **streaming,
                },
            },
            context=SKIP_RULES,
        )
        scorer = EventScorer(CONTRACT, self.model, Pipeline(CONTRACT, self.model), 4)
        ledger = StreamLedger(self.wrap(self.writer()), self.stop)
        worker = StreamWorker(config, scorer, source, ledger, self.metrics, self.stop)
        self.worker = worker

        def run() -> None:
            try:
                worker.run()
            except Exception as error:  # noqa: BLE001
                self.failure = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def positions(self) -> dict[int, Position]:
        writer = self.writer()
        try:
            return writer.positions({0: 0, 1: 0})
        finally:
            writer.close()

    def work(self, source: Memory, **streaming: Any) -> dict[int, Position]:
        """Let a worker do all there is and stop; return where it left the partitions."""
        self.start(source, **streaming)
        ends = [len(values) for values in source.values]
        until(
            lambda: [self.positions()[at].next for at in range(len(ends))] == ends,
            lambda: f"the positions are {ends}: {self.positions()}",
            interval=0.005,
        )
        return self.end()

    def end(self) -> dict[int, Position]:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.positions()

    def answers(self, *questions: bytes) -> dict[str, float]:
        async def look() -> dict[str, float]:
            reader = open_reader(self.uri, 5.0)
            keys: list[Any] = [f"{p}-{at}" for p in range(2) for at in range(50)]
            found = await reader.live("n", "d", [*keys, *questions])
            await reader.close()
            assert found is not None
            return {
                key.decode() if isinstance(key, bytes) else str(key): answer.outputs["y"]
                for key, answer in found.answers.items()
            }

        return asyncio.run(look())

    def letters(self) -> list[tuple[Any, ...]]:
        import sqlite3

        connection = sqlite3.connect(self.uri.removeprefix("sqlite:///"))
        rows = connection.execute(
            "SELECT partition, position, attempts, reason, headers FROM dead_letters"
        ).fetchall()
        connection.close()
        return rows
