"""Stream workers on a real Kafka broker: killed, overtaken, moved, and nothing lost or doubled."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.kit.kills import LONG_KILLS
from tests.kit.secret_files import secret_folder
from tests.kit.stream_rig import (
    PARTITIONS,
    PATIENCE,
    WorkerProcess,
    answers,
    ask,
    configure,
    dead_letters,
    stands,
)
from tests.kit.waiting import until
from tools.servers.postgres import Server

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(900)]

KILLS = LONG_KILLS or 4
EVENTS = 2_000 * KILLS
NUMBERS = count()


def source(broker: Any, topic: str) -> dict[str, Any]:
    return {"kafka": {"bootstrapServers": broker.bootstrap, "topic": topic}}


def send(broker: Any, topic: str, events: list[tuple[str, bytes]]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    for number, (key, value) in enumerate(events):
        producer.produce(topic, value, key, partition=number % PARTITIONS)
        producer.poll(0)
    assert producer.flush(30) == 0


def ends(broker: Any, topic: str) -> dict[int, int]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "ends"})
    try:
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        return {p.partition: consumer.get_watermark_offsets(p, timeout=10)[1] for p in places}
    finally:
        consumer.close()


def event(key: str, x: float) -> bytes:
    return json.dumps({"id": key, "x": x}).encode()


COUNTED = """
CREATE TABLE seen (id text, y double precision);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO seen VALUES (NEW.id, NEW.y); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON fourways.{table}
FOR EACH ROW EXECUTE FUNCTION note();
"""


def count_writes(store: str) -> None:
    """Let the database itself note each answer that is written, so that a second one shows."""
    import psycopg

    ((table,),) = until(
        lambda: ask(store, "SELECT table_name FROM fourways.streams"),
        "the stream has a table",
        seconds=30 * PATIENCE,
    )
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute(COUNTED.format(table=table).encode())


def test_killed_workers_lose_nothing_and_double_nothing(
    broker: Any,
    topic: str,
    postgres: Server,
    tmp_path: Path,
) -> None:
    store = postgres.database()
    chance = random.Random(7)
    # Kills are no fault of an event's, however many of them fall on one.
    config = configure(tmp_path, store, source(broker, topic), maxAttempts=KILLS + 1)
    workers = [WorkerProcess(tmp_path, config) for _ in range(2)]
    count_writes(store)
    poison = {f"p{at}": b'{"x": "poison"}' for at in range(20)}
    planned = [(f"k{at}", event(f"k{at}", at + 20_000)) for at in range(EVENTS - len(poison))]
    for key, value in poison.items():
        planned.insert(chance.randrange(len(planned)), (key, value))

    share = EVENTS // (KILLS + 1) + 1
    for start in range(0, EVENTS, share):
        send(broker, topic, planned[start : start + share])
        if start:
            # Killed amid the work: at some answer of this share, not before the first.
            goal = start + chance.randrange(share // 2)
            until(
                lambda goal=goal: sum(stands(store).values()) >= goal,
                f"{goal} events are scored",
                seconds=60 * PATIENCE,
            )
            victim = chance.choice(workers)
            victim.kill()
            victim.start()
    end = ends(broker, topic)
    assert sum(end.values()) == EVENTS
    until(lambda: stands(store) == end, f"all events are scored: {end}", seconds=60 * PATIENCE)

    good = {key: value for key, value in planned if key not in poison}
    expected = {key: json.loads(value)["x"] * 2 + 1 for key, value in good.items()}
    assert answers(store, list(good)) == expected
    written = ask(store, "SELECT id, y FROM seen")
    assert len(written) == len(good)
    assert dict(written) == expected
    letters = dead_letters(store)
    assert [(key, reason) for key, _, reason in letters] == [
        (key, "x: 'poison' is not a number") for key in sorted(poison)
    ]
    # A try is counted before the model is asked: one that a kill cut off counts as well.
    assert all(1 <= tries <= 1 + KILLS for _, tries, _ in letters)
    # One that was started anew just now does not hear of its end before it listens.
    for worker in workers:
        until(worker.ready, "the worker is ready", seconds=30 * PATIENCE)
    assert [worker.stop() for worker in workers] == [0, 0]


def test_partitions_move_between_healthy_workers_without_a_second_try(
    broker: Any,
    topic: str,
    postgres: Server,
    tmp_path: Path,
) -> None:
    store = postgres.database()
    config = configure(tmp_path, store, source(broker, topic))
    first = WorkerProcess(tmp_path, config)
    count_writes(store)
    planned = [(f"k{at}", event(f"k{at}", at)) for at in range(20_000, 26_000)]
    send(broker, topic, planned[:3000])
    second = WorkerProcess(tmp_path, config)
    until(
        lambda: "partitions begin" in second.log.read_text(),
        "the second worker begins",
        seconds=30 * PATIENCE,
    )
    send(broker, topic, planned[3000:])
    until(
        lambda: stands(store) == ends(broker, topic), "all events are scored", seconds=30 * PATIENCE
    )
    assert first.stop() == 0
    send(broker, topic, [("last", event("last", 1))] * 3)
    until(
        lambda: stands(store) == ends(broker, topic), "all events are scored", seconds=30 * PATIENCE
    )
    assert second.stop() == 0
    assert ask(store, "SELECT DISTINCT tries FROM fourways.positions") == [(0,)]
    assert len(ask(store, "SELECT id FROM seen WHERE id <> 'last'")) == 6000
    assert "beginning anew" not in first.log.read_text() + second.log.read_text()


def test_a_topic_that_is_not_there_is_told_in_time(broker: Any, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(broker, "none")))
    assert worker.ended(25) == 4
    words = worker.last_words()
    assert (words.reason, words.outcome) == ("TopicNotFound", "Failed")
    assert "no topic none" in words.message


def test_an_outage_longer_than_the_session_ends_without_a_wait_for_the_old_member(
    broker: Any, topic: str, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(broker, topic)))
    send(broker, topic, [("a", event("a", 1))])
    until(lambda: sum(stands(store).values()) == 1, "a is scored", seconds=30 * PATIENCE)
    broker.kill()
    try:
        until(
            lambda: "session timed out" in worker.log.read_text(),
            "the worker's session in the group ends",
            seconds=20 * PATIENCE,
        )
    finally:
        broker.start()
    send(broker, topic, [("b", event("b", 1))])
    until(lambda: sum(stands(store).values()) == 2, "b is scored", seconds=30 * PATIENCE)
    # A member with an id of its own is taken back; of others the group keeps the old one for six
    # seconds.
    group = "fourways-n-anomaly"
    admin = broker.admin()  # Kept: without a reference the answer never arrives.
    told = admin.describe_consumer_groups([group])[group].result(20)
    assert told.members
    assert all(member.group_instance_id for member in told.members)
    assert worker.stop() == 0
    assert worker.log.read_text().count("Connection refused") < 60  # Tens a second, unfiltered.


def test_a_rotated_login_is_read_again_and_a_refused_one_is_named(
    broker: Any, topic: str, tmp_path: Path
) -> None:
    broker.set_password("app", "first")
    broker.set_password("app", "third", bits=512)
    secret = secret_folder(tmp_path / "secrets" / "broker")
    for name, text in {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "app",
        "sasl.password": "first",
    }.items():
        (secret / name).write_text(text)
    told = source(broker, topic)
    told["kafka"] |= {"bootstrapServers": broker.scram, "credentials": {"secretName": "broker"}}
    store = f"sqlite:///{tmp_path}/store.db"
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, told))

    def scored(count: int) -> None:
        send(broker, topic, [(f"k{count}", event(f"k{count}", 1))])
        until(
            lambda: sum(stands(store).values()) == count,
            lambda: f"{count} events are scored; {worker.readiness()}",
            seconds=30 * PATIENCE,
        )

    def refused() -> None:
        until(
            lambda: "refuses the login in the Secret broker" in worker.readiness(),
            worker.readiness,
            seconds=20 * PATIENCE,
        )

    scored(1)
    broker.set_password("app", "second")
    refused()
    assert "first" not in worker.readiness()
    (secret / "sasl.password").write_text("second")
    scored(2)
    broker.set_password("app", "unknown")
    refused()
    # More than user and password: the worker opens the source anew.
    (secret / "sasl.password").write_text("third")
    (secret / "sasl.mechanism").write_text("SCRAM-SHA-512")
    scored(3)
    until(worker.ready, "the worker is ready", seconds=20 * PATIENCE)
    assert worker.stop() == 0
    assert dead_letters(store) == []
