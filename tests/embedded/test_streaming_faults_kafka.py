"""Stream workers while their topic changes: nothing lost, all told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.stream_rig import (
    PATIENCE,
    WorkerProcess,
    answered,
    answers,
    configure,
    dead_letters,
    ready,
    stands,
)
from tests.kit.waiting import until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def produce(broker: Any, topic: str, *events: tuple[str, str | None]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for key, value in events:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def test_a_topic_made_anew_under_a_worker_is_read_from_its_start(
    broker: Any, lite: str, tmp_path: Path
) -> None:
    broker.make_topic("anew")
    told = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": "anew"}}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, told))
    produce(broker, "anew", *[("a", '{"x": 1}')] * 5)
    answered(lite, "a")
    admin = broker.admin()
    admin.delete_topics(["anew"])["anew"].result(20)
    until(lambda: "anew" not in admin.list_topics(timeout=5).topics, "the topic is gone")
    broker.make_topic("anew")
    produce(broker, "anew", ("bb", '{"x": 2}'))
    answered(lite, "a", "bb")
    assert worker.stop() == 0


def test_what_the_retention_of_a_topic_deletes_unread_is_counted_and_the_rest_is_read(
    broker: Any, lite: str, tmp_path: Path
) -> None:
    from confluent_kafka import TopicPartition

    broker.make_topic("cut")
    told = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": "cut"}}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, told))
    produce(broker, "cut", ("a", '{"x": 1}'))
    answered(lite, "a")
    assert worker.stop() == 0
    produce(broker, "cut", *[("a", '{"x": 1}')] * 9, ("bb", '{"x": 2}'))
    admin = broker.admin()
    place = TopicPartition("cut", 0, 8)
    admin.delete_records([place])[place].result(20)
    worker.start()
    answered(lite, "a", "bb")
    ready(worker)
    assert worker.metric("fourways_stream_expired_events_total") == 7
    assert "deleted the positions 1 to 7 of partition 0" in worker.readiness()
    assert worker.stop() == 0


def test_tombstones_of_a_compacted_topic_delete_answers(
    broker: Any, lite: str, tmp_path: Path
) -> None:
    broker.make_topic("tombs")
    told = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": "tombs"}}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, told))
    produce(broker, "tombs", ("a", '{"x": 1}'), ("bb", '{"x": 2}'), ("a", None))
    until(lambda: stands(lite) == {0: 3}, lambda: stands(lite), seconds=30 * PATIENCE)
    assert answers(lite, ["a", "bb"]) == {"bb": 5.0}
    assert dead_letters(lite) == []
    assert worker.stop() == 0


def test_markers_of_transactions_are_no_events_that_wait_or_expire(
    broker: Any, lite: str, tmp_path: Path
) -> None:
    from confluent_kafka import Producer, TopicPartition

    broker.make_topic("tx")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "t"})
    producer.init_transactions(30)

    def transaction(key: str, count: int, *, commits: bool = True) -> None:
        producer.begin_transaction()
        for _ in range(count):
            producer.produce("tx", json.dumps({"x": len(key)}), key)
        producer.flush(10)
        (producer.commit_transaction if commits else producer.abort_transaction)(10)

    told = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": "tx"}}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, told))
    transaction("a", 3)
    transaction("aborted", 5, commits=False)
    transaction("bb", 1)
    answered(lite, "a", "bb")
    transaction("aborted", 5, commits=False)
    until(lambda: stands(lite) == {0: 18}, lambda: stands(lite), seconds=10 * PATIENCE)
    until(lambda: worker.metric("fourways_stream_lag{") == 0, "no event waits", seconds=20)
    assert worker.stop() == 0
    place = TopicPartition("tx", 0, -1)
    admin = broker.admin()
    admin.delete_records([place])[place].result(20)
    worker.start()
    transaction("ccc", 1)
    answered(lite, "a", "bb", "ccc")
    assert worker.metric("fourways_stream_expired_events_total") == 0
    assert "aborted" not in answers(lite, ["aborted"])
    assert worker.stop() == 0
