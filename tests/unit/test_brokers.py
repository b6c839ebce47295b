"""A broker is added by registering it: plan, worker and gateway need no change.

The toy broker keeps its events in memory. Its settings are a block of the source like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry

from fourways_api import Contract, Paths
from fourways_api.base import SKIP_RULES, ApiModel, Rule
from fourways_api.model import SecretReference
from fourways_api.modes import StreamSource
from fourways_api.runtime_config import StreamConfig
from fourways_operator.plan import streaming as plan
from fourways_runtime.io.brokers import registry
from fourways_runtime.io.brokers.source import Events, LogBounds, PartitionListener
from fourways_runtime.io.store import StreamDeclaration, open_stream_writer
from fourways_runtime.io.store.streams.stream import EventPosition
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.workloads.streaming.ledger import StreamLedger
from fourways_runtime.workloads.streaming.observed import StreamMetrics
from fourways_runtime.workloads.streaming.scoring import EventScorer
from fourways_runtime.workloads.streaming.worker import StreamWorker
from tests.kit.waiting import until

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float64"}],
        "outputs": [{"name": "y", "type": "float64"}],
    }
)


class ToySettings(ApiModel):
    """Events of a list in memory."""

    DEFAULT_PORT: ClassVar[int | None] = 7000

    hosts: str
    queue: str
    credentials: SecretReference | None = None

    def addresses(self) -> list[str]:
        return self.hosts.split(",")


class WithToy(StreamSource):
    """The source's blocks, and the toy's."""

    rules: ClassVar[tuple[Rule, ...]] = ()  # Those of the manifest name its blocks.
    toy: ToySettings | None = None


Log = list[tuple[bytes, bytes]]


class ToySource:
    """Events from a list."""

    identity = "toy/1"

    def __init__(self, log: Log) -> None:
        self.log = log
        self.at: int | None = None

    def open(self, seconds: float) -> None: ...

    def start(self, listener: PartitionListener) -> None:
        self.at = listener.assigned([0])[0]

    def bounds(self, partition: int) -> LogBounds:
        return LogBounds(0, len(self.log))

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        assert self.at is not None
        found = self.log[self.at : self.at + most]
        if not found:
            time.sleep(0.001)
            return None
        positions = range(self.at, self.at + len(found))
        self.at += len(found)
        keys, values = zip(*found, strict=True)
        return Events([0] * len(found), positions, keys, values, lambda at: ())

    def read_up_to(self) -> Mapping[int, int]:
        return {}

    def idle(self, seconds: float) -> None: ...

    def held(self) -> Sequence[int]:
        return [0]

    def seek(self, positions: Mapping[int, int]) -> None:
        self.at = positions[0]

    def passed(self, positions: Mapping[int, int]) -> None: ...

    def newest(self) -> Mapping[int, int]:
        return {0: len(self.log)}

    def check(self) -> None: ...

    def problem(self) -> str:
        return ""

    def close(self) -> None: ...


class ToyPublisher:
    """Appends to a list."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def connect(self) -> None: ...

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        self.log.append((key, value))
        return EventPosition(0, len(self.log) - 1)

    async def close(self) -> None: ...


class Doubling:
    inputs = (Tensor("x", "float64", (None,)),)
    outputs = (Tensor("y", "float64", (None,)),)

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": tensors["x"].reshape(-1) * 2}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the toy broker for one test."""
    monkeypatch.setattr(registry, "BROKERS", dict(registry.BROKERS))
    log: Log = []

    def source(settings: ToySettings, config: StreamConfig) -> ToySource:
        assert settings.queue == "q"
        return ToySource(log)

    registry.register(
        registry.BrokerKind("toy", source, lambda *_: ToyPublisher(log), lambda *_: iter(()))
    )


SOURCE = WithToy.model_validate(
    {"toy": {"hosts": "a,b:7001", "queue": "q", "credentials": {"secretName": "login"}}}
)


def test_the_plan_takes_ports_and_secret_from_the_settings() -> None:
    assert SOURCE.broker_name() == "toy"
    assert plan.ports_of(SOURCE) == {7000, 7001}
    credentials = plan.credentials_of(SOURCE)
    assert credentials is not None
    assert credentials.secret_name == "login"


@pytest.mark.usefixtures("toy")
async def test_events_published_to_a_registered_broker_are_scored(tmp_path: Path) -> None:
    publisher = registry.open_publisher(SOURCE, Paths())
    assert await publisher.publish(b"k", b'{"x": 4}', {}) == EventPosition(0, 0)
    config = StreamConfig.model_validate(
        {
            "namespace": "n",
            "name": "d",
            "contract": CONTRACT.to_json(),
            "model": {"uri": "file:///m", "version": "v1", "format": "onnx"},
            "streaming": {"source": {"kafka": {"bootstrapServers": "a:1", "topic": "t"}}},
        },
        context=SKIP_RULES,
    )
    config = config.model_copy(
        update={"streaming": config.streaming.model_copy(update={"source": SOURCE})}
    )
    source = registry.new_source(config)
    source.open(1.0)
    stream = StreamDeclaration("n", "d", "v1", "sha256:0", CONTRACT, source.identity)
    uri = f"sqlite:///{tmp_path}/store.db"
    stop = threading.Event()
    model = Doubling()
    worker = StreamWorker(
        config,
        EventScorer(CONTRACT, model, Pipeline(CONTRACT, model), 4),
        source,
        StreamLedger(open_stream_writer(uri, stream), stop),
        StreamMetrics(CollectorRegistry()),
        stop,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    writer = open_stream_writer(uri, stream)
    until(lambda: writer.positions({0: 0})[0].next == 1, "the event is scored")
    writer.close()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_every_block_of_the_manifest_has_a_broker() -> None:
    assert set(registry.BROKERS) == set(StreamSource.model_fields)
