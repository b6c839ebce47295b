"""The bare stages of a stream worker, each alone in a loop, pinned to one core.

``python -m benchmarks.streaming_stages STAGE SETTINGS`` prints events per second. Each stage is
written as a program that has only this stage to do.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np
import orjson

from benchmarks.serving.work import FEATURES, forest

KEYS = 100_000
PARTITIONS = 3
SECONDS = 4.0
BYTES = 257

TABLE = """
CREATE TABLE bare (id text COLLATE "C" PRIMARY KEY, score real NOT NULL) WITH (fillfactor = 80);
CREATE TABLE bare_offsets (partition integer PRIMARY KEY, next bigint NOT NULL);
INSERT INTO bare_offsets VALUES (0, 0), (1, 0), (2, 0);
"""
STATEMENT = b"""
WITH moved AS (
    UPDATE bare_offsets o SET next = o.next + m.step
    FROM unnest($1::integer[], $2::bigint[]) AS m (partition, step)
    WHERE o.partition = m.partition RETURNING 1),
answers AS (
    INSERT INTO bare SELECT * FROM unnest($3::text[], $4::real[])
    ON CONFLICT (id) DO UPDATE SET score = excluded.score)
SELECT 1 / (CASE WHEN (SELECT count(*) FROM moved) = 3 THEN 1 ELSE 0 END)"""


def event(number: int) -> bytes:
    """Return an event of 257 bytes; no two are alike."""
    values = np.random.default_rng(number).normal(0, 1, FEATURES)
    inputs = {f"x{at}": round(float(value), 3) for at, value in enumerate(values)}
    raw = orjson.dumps({"id": key(number), **inputs})
    return raw[:-1] + b" " * (BYTES - len(raw)) + b"}"


def key(number: int) -> str:
    """Return the entity key of an event."""
    return f"e{number * 7919 % KEYS:05d}"


def main() -> None:
    """Measure one stage."""
    stage, settings = sys.argv[1], json.loads(sys.argv[2])
    stages: dict[str, Callable[[dict[str, Any]], float]] = {
        "consume": consume,
        "decode": decode,
        "model": model,
        "statement": statement,
        "answered": answered,
    }
    print(stages[stage](settings))


def consume(settings: dict[str, Any]) -> float:
    """Kafka alone: as fast as librdkafka delivers, with the values read."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": settings["bootstrap"],
            "group.id": "bare",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 20_000,
        }
    )
    consumer.assign([TopicPartition(settings["topic"], at, 0) for at in range(PARTITIONS)])
    seen, started = 0, 0.0
    while seen < settings["events"]:
        values = [message.value() for message in consumer.consume(settings["batch"], 1.0)]
        started = started or perf_counter()
        seen += len(values)
    rate = seen / (perf_counter() - started)
    consumer.close()
    return rate


def decode(settings: dict[str, Any]) -> float:
    """The JSON library and numpy alone."""
    names = [f"x{at}" for at in range(FEATURES)]

    def work(values: list[bytes]) -> None:
        documents = [orjson.loads(value) for value in values]
        np.array([[document[name] for name in names] for document in documents], np.float32)

    return timed(settings, [event(number) for number in range(16_384)], work)


def model(settings: dict[str, Any]) -> float:
    """The model library alone, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(forest(), options, providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(1).normal(0, 1, (16_384, FEATURES)).astype(np.float32)

    def work(batch: Any) -> None:
        session.run(["score"], {"input": batch})

    return timed(settings, rows, work)


def statement(settings: dict[str, Any]) -> float:
    """The database alone: one statement per batch, sent before the previous one is answered."""
    from psycopg.pq import ExecStatus

    def work(line: Any, name: bytes, values: list[bytes]) -> None:
        if not line.pipeline_status:
            line.nonblocking = 0
            line.enter_pipeline_mode()
            line.send_query_prepared(name, values, [1] * len(values), 0)
            line.pipeline_sync()
        line.send_query_prepared(name, values, [1] * len(values), 0)
        line.pipeline_sync()
        while (result := line.get_result()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            assert result is None or not result.error_message, result.error_message

    return _written(settings, work)


def answered(settings: dict[str, Any]) -> float:
    """The same, but each statement is sent after the previous one is answered."""
    from psycopg.pq import ExecStatus

    def work(line: Any, name: bytes, values: list[bytes]) -> None:
        result = line.exec_prepared(name, values, [1] * len(values), 0)
        assert result.status == ExecStatus.TUPLES_OK, result.error_message

    return _written(settings, work)


def _written(settings: dict[str, Any], work: Callable[[Any, bytes, list[bytes]], None]) -> float:
    """Write batches whose parameters were packed beforehand."""
    import psycopg

    count = settings["batch"]
    batches = []
    for start in range(0, KEYS - count, count):
        keys = sorted({key(number) for number in range(start, start + count)})
        batches.append((_texts(keys), _reals(len(keys))))
    connection = psycopg.connect(settings["store"], autocommit=True)
    try:
        connection.execute("DROP TABLE IF EXISTS bare, bare_offsets")
        connection.execute(TABLE)
        line = connection.pgconn
        line.prepare(b"bare", STATEMENT)
        moves = [_whole(23, ">ii", [0, 1, 2]), _whole(20, ">iq", [86, 85, 85])]
        done, rounds = 0, 0
        started = perf_counter()
        for answers in cycle(batches):
            work(line, b"bare", [*moves, *answers])
            done, rounds = done + count, rounds + 1
            # The first round inserts; later events of a stream mostly replace.
            if rounds == len(batches):
                done, started = 0, perf_counter()
            elif rounds > len(batches) and perf_counter() - started > SECONDS:
                break
        return done / (perf_counter() - started)
    finally:
        connection.close()  # unchanged: statements are in flight


def timed(settings: dict[str, Any], given: Any, work: Callable[[Any], None]) -> float:
    """Process the given batches for a while."""
    size = settings["batch"]
    batches: list[Any] = [given[at : at + size] for at in range(0, len(given), size)]
    for batch in islice(cycle(batches), 16):
        work(batch)
    done, started = 0, perf_counter()
    for batch in _cycled(batches):
        work(batch)
        done += len(batch)
        if perf_counter() - started > SECONDS:
            break
    return done / (perf_counter() - started)


def _cycled(batches: list[Any]) -> Iterator[Any]:
    return cycle(batches)


def _whole(oid: int, form: str, values: list[int]) -> bytes:
    size = struct.calcsize(form) - 4
    cells = b"".join(struct.pack(form, size, value) for value in values)
    return struct.pack(">iiiii", 1, 0, oid, len(values), 1) + cells


def _texts(values: list[str]) -> bytes:
    cells = b"".join(struct.pack(">i", len(v)) + v.encode() for v in values)
    return struct.pack(">iiiii", 1, 0, 25, len(values), 1) + cells


def _reals(count: int) -> bytes:
    cells = b"".join(struct.pack(">if", 4, float(at)) for at in range(count))
    return struct.pack(">iiiii", 1, 0, 700, count, 1) + cells


if __name__ == "__main__":
    main()
