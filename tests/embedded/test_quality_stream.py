"""The quality of a stream's predictions: over both stores, and as a worker's process tells it."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from fourways_api import QualityStatus
from fourways_api.quality import Quality
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_runtime.errors import TopicNotFound
from fourways_runtime.io.brokers.nats_client import KEY_HEADER
from fourways_runtime.io.brokers.registry import read_topic
from fourways_runtime.io.store import open_database, open_run_store
from fourways_runtime.io.store.past import Compared, past_batches, prune
from fourways_runtime.io.store.streams.stream import Move
from fourways_runtime.workloads.quality_watch import measure_window
from tests.kit.batch_world import World
from tests.kit.serving_plane import NO_TLS
from tests.kit.stores import OpenStream, commit, predictions
from tests.kit.stream_rig import (
    PARTITIONS,
    PATIENCE,
    NatsServer,
    WorkerProcess,
    configure,
    stands,
)
from tests.kit.waiting import until
from tools.servers.postgres import Server

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SETTINGS = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "y",
    "metrics": ["MAE", "RMSE"],
    "interval": "1s",
}


def truth(path: Path, rows: list[tuple[Any, float, datetime]], key: pa.DataType) -> None:
    keys, labels, times = zip(*rows, strict=True)
    table = pa.table(
        {
            "id": pa.array(keys, key),
            "happened": pa.array(labels, pa.float64()),
            "at": pa.array(times, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def values(status: QualityStatus) -> dict[str, float]:
    return {each.name: each.value for each in status.metrics}


def test_labels_find_the_prediction_of_their_time_in_either_store(
    tmp_path: Path, uri: str, namespace: str, open_stream: OpenStream
) -> None:
    writer = open_stream(compared=Compared("y"))
    writer.begin({0: 0})
    for start, answer in ((0, 1.0), (40, 5.0)):
        made = predictions(list(range(40)), start, y=[answer] * 40)
        commit(writer, [Move(0, start, start + 40)], made, deleted=[99] if start else [])
    with closing(open_database(uri)) as store:
        first, second, gone = past_batches(store, namespace, "anomaly", "y", EPOCH)
        assert (first.keys, first.values) == (list(range(40)), [1.0] * 40)
        assert (gone.keys, gone.values) == ([99], None)
        assert second.at == gone.at
        at = [EPOCH + timedelta(microseconds=batch.at) for batch in (first, second)]
        just_before = at[1] - timedelta(microseconds=1)
        rows = [
            *((key, 2.0, just_before) for key in range(40)),
            *((key, 5.5, at[1]) for key in range(0, 40, 2)),
            *((key, 8.0, at[0] - timedelta(seconds=1)) for key in range(40)),
        ]
        world = World(tmp_path, uri, namespace)
        truth(world.file("truth.parquet"), rows, pa.int64())
        config = world.config(
            quality=SETTINGS,
            contract={
                "entityKey": {"name": "id", "type": "int64"},
                "inputs": [{"name": "x", "type": "float32"}],
                "outputs": [{"name": "y", "type": "float64"}],
            },
        )
        quality = Quality.model_validate(SETTINGS)
        now = at[1] + timedelta(seconds=5)
        found = measure_window(config, quality, store, "anomaly", now)
        errors = np.array([1.0] * 40 + [0.5] * 20)
        assert found.labels == 60
        assert values(found) == pytest.approx(
            {"MAE": errors.mean(), "RMSE": np.sqrt((errors**2).mean())}, rel=1e-5
        )
        prune(store, namespace, "anomaly", EPOCH, 49)
        assert [
            len(each.keys) for each in past_batches(store, namespace, "anomaly", "y", EPOCH)
        ] == [
            40,
            1,
        ]
        prune(store, namespace, "anomaly", now, 41)
        assert list(past_batches(store, namespace, "anomaly", "y", EPOCH)) == []


def test_a_stream_worker_tells_the_quality_of_late_and_corrected_labels(
    own_nats: NatsServer, postgres: Server, tmp_path: Path
) -> None:
    own_nats.make_stream("SENSORS", "sensors.>")
    store = postgres.database()
    source = {"nats": {"servers": own_nats.url, "stream": "SENSORS", "subject": "sensors.*"}}
    folder = tmp_path / "volumes" / "data"
    folder.mkdir(parents=True)
    config = configure(tmp_path, store, source)
    config = config.model_copy(
        update={
            "quality": Quality.model_validate(SETTINGS),
            "paths": config.paths.model_copy(update={"volumes_root": str(tmp_path / "volumes")}),
        }
    )
    worker = WorkerProcess(tmp_path, config)
    keys = [f"k{at}" for at in range(50)]

    def send(x: float) -> None:
        bodies = [json.dumps({"id": key, "x": x}).encode() for key in keys]
        own_nats.publish(("sensors.a", body, None) for body in bodies)

    def written(count: int) -> None:
        until(lambda: stands(store) == {0: count + 1}, f"{count} events", seconds=30 * PATIENCE)

    def told() -> QualityStatus | None:
        try:
            answer = httpx.get(f"{worker.url}{FAULTS_PATH}", verify=NO_TLS)
        except httpx.HTTPError:
            return None
        return WorkerFaults.model_validate_json(answer.content).quality

    def compared(labels: int, mae: float) -> None:
        def is_told() -> bool:
            found = told()
            return bool(found and found.labels == labels and values(found).get("MAE") == mae)

        until(is_told, lambda: f"{labels} labels, MAE {mae}: {told()}", seconds=30 * PATIENCE)

    send(10)  # y = 21
    written(50)
    between = datetime.now(UTC)
    send(20)  # y = 41
    written(100)
    after = datetime.now(UTC)
    file = folder / "truth.parquet"
    rows: list[tuple[Any, float, datetime]] = [(key, 20.0, between) for key in keys[:40]]
    truth(file, rows, pa.string())
    compared(40, 1.0)
    rows += [(key, 44.0, after) for key in keys[:40]]
    truth(file, rows[::-1], pa.string())
    compared(80, 2.0)
    rows += [(key, 17.0, between + timedelta(microseconds=1)) for key in keys[:40]]
    truth(file, rows, pa.string())
    compared(80, 3.5)
    with closing(open_run_store(store, read_only=True)) as runs:
        (reported,) = until(
            lambda: [
                found.report
                for found in runs.worker_reports("n", "anomaly")
                if (found.report["quality"] or {}).get("labels") == 80
            ],
            "the worker reports to the store",
            seconds=30 * PATIENCE,
        )
    assert (reported["lag"], reported["version"]) == ({"0": 0}, "v1")
    assert worker.stop() == 0


@pytest.mark.parametrize("kind", ["nats", "kafka"])
def test_labels_of_a_topic_are_read_from_the_broker(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was published since a time, from all partitions, and of another stream's subject."""
    rows = [(f"k{at}".encode(), f"label {at}".encode()) for at in range(2500)]
    if kind == "nats":
        server: NatsServer = request.getfixturevalue("own_nats")
        server.make_stream("SENSORS", "sensors.>")
        server.make_stream("TRUTH", "labels.*", "other")
        headers = [{KEY_HEADER: key.decode()} for key, _ in rows]
        server.publish(("labels.a", row[1], told) for row, told in zip(rows, headers, strict=True))
        server.publish([("other", b"-", None)])
        own = {"servers": server.url, "stream": "SENSORS", "subject": "sensors.*"}
        source, topic, absent = {"nats": own}, "labels.*", "nowhere"
    else:
        broker = request.getfixturevalue("broker")
        topic = request.getfixturevalue("topic")
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for at, (key, value) in enumerate(rows):
            producer.produce(topic, value, key, partition=at % PARTITIONS)
        assert producer.flush(30) == 0
        own = {"bootstrapServers": broker.bootstrap, "topic": "other"}
        source, absent = {"kafka": own}, "nowhere"
    config = configure(tmp_path, f"sqlite:///{tmp_path}/store.db", source)
    now = datetime.now(UTC).timestamp()
    found = [each for page in read_topic(config, topic, now - 600) for each in page]
    assert sorted(found) == sorted(rows)
    assert [each for page in read_topic(config, topic, now + 600) for each in page] == []
    with pytest.raises(TopicNotFound, match="nowhere"):
        list(read_topic(config, absent, now))
