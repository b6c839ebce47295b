"""Stream workers as processes, on a real NATS server and on both stores."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.io.brokers.nats_source import NatsEvents
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from tests.kit.stream_rig import (
    PATIENCE,
    NatsServer,
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


@pytest.fixture
def nats(own_nats: NatsServer) -> NatsServer:
    own_nats.make_stream("SENSORS", "sensors.>", "other")
    return own_nats


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("postgres")
    return server.database()


def source(server: NatsServer) -> dict[str, Any]:
    return {"nats": {"servers": server.url, "stream": "SENSORS", "subject": "sensors.*"}}


def event(key: str, x: float) -> bytes:
    return json.dumps({"id": key, "x": x}).encode()


def send(server: NatsServer, events: list[tuple[str, bytes]], other: int = 0) -> None:
    """Publish events by key; between them, some of another subject leave gaps."""
    server.publish(
        message
        for start in range(0, len(events), 256)
        for message in (
            *(("sensors.a", v, {"fourways-key": key}) for key, v in events[start : start + 256]),
            *(("other", b"-", None) for _ in range(other)),
        )
    )


def last(server: NatsServer) -> int:
    async def work(jetstream: Any) -> int:
        found = await jetstream.get_last_msg("SENSORS", "sensors.a")
        return int(found.seq)

    return int(server.do(work))


def test_events_are_answered_and_poison_is_put_aside_with_its_reason(
    nats: NatsServer, store: str, tmp_path: Path
) -> None:
    poison = [
        ("bad-json", b'{"x": 1', 1, "event: it is not JSON"),
        ("nan", b'{"x": NaN}', 1, "event: it is not JSON"),
        ("wrong-shape", b'{"x": [1, 2]}', 1, "x: a list is not a number"),
        ("missing", b'{"y": 1}', 1, "x: missing"),
        ("negative", b'{"x": -1}', 1, "x: -1 is below 0"),
        ("raises", b'{"x": 13}', 3, "model: its code failed: ValueError"),
        ("kills", b'{"x": 666}', 3, "model: the worker died over it 3 times"),
    ]
    good = [(f"k{at}", event(f"k{at}", at + 20_000)) for at in range(600)]
    planned = list(good)
    for number, (key, value, _, _) in enumerate(poison):
        planned.insert(70 * number + 35, (key, value))
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    send(nats, planned, other=3)
    end = last(nats) + 1
    until(
        lambda: stands(store) == {0: end},
        lambda: f"all {end} events are scored: {stands(store)}",
        seconds=100 * PATIENCE,
        meanwhile=worker.revive,
    )
    assert answers(store, [key for key, _ in planned]) == {
        f"k{at}": (at + 20_000) * 2.0 + 1 for at in range(600)
    }
    found = dead_letters(store)
    assert [key for key, _, _ in found] == sorted(key for key, _, _, _ in poison)
    for key, _, attempts, reason in poison:
        (told,) = [letter for letter in found if letter[0] == key]
        assert told[1] == attempts
        assert told[2].startswith(reason)
    rows = ask(store, "SELECT value, headers FROM fourways.dead_letters WHERE attempts = 1")
    assert (b'{"y": 1}', '[["fourways-key","missing"]]') in [(bytes(v), h) for v, h in rows]

    until(worker.ready, "the worker is ready", seconds=20 * PATIENCE)
    send(nats, [("k0", event("k0", 7))])
    until(
        lambda: answers(store, ["k0"]) == {"k0": 15.0},
        "the new answer for k0",
        seconds=20 * PATIENCE,
    )
    assert "fourways_stream_events_total" in worker.metrics()
    assert worker.stop() == 0
    assert ask(store, "SELECT tries FROM fourways.positions") == [(0,)]


def test_a_model_that_never_comes_back_ends_the_worker_and_the_event_is_put_aside(
    nats: NatsServer, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    config = configure(tmp_path, store, source(nats), maxAttempts=2)
    model = config.model.model_copy(update={"call_timeout": "1s"})
    config = config.model_copy(update={"model": model})
    worker = WorkerProcess(tmp_path, config)
    good = [(f"k{at}", event(f"k{at}", at + 20_000)) for at in range(200)]
    send(nats, [*good[:90], ("hangs", event("hangs", 777)), *good[90:]])
    assert worker.ended(30) == 75
    words = worker.last_words()
    assert (words.reason, words.version) == ("ModelHangs", "v1")
    assert words.message.startswith("scoring: ")
    assert "of partition 0 from position" in words.message
    assert "by model v1 (python); the model has not returned for" in words.message
    end = last(nats) + 1
    until(
        lambda: stands(store) == {0: end},
        lambda: f"all {end} events are scored: {stands(store)}",
        seconds=100 * PATIENCE,
        meanwhile=worker.revive,
    )
    assert answers(store, [key for key, _ in good]) == {
        f"k{at}": (at + 20_000) * 2.0 + 1 for at in range(200)
    }
    ((key, attempts, reason),) = dead_letters(store)
    assert (key, attempts) == ("hangs", 2)
    assert reason.startswith("model: the worker died over it 2 times")
    assert worker.stop() == 0


def test_another_worker_stands_by_and_takes_over(
    nats: NatsServer, store: str, tmp_path: Path
) -> None:
    config = configure(tmp_path, store, source(nats))
    first = WorkerProcess(tmp_path, config)
    until(first.ready, "the first worker is ready", seconds=30 * PATIENCE)
    second = WorkerProcess(tmp_path, config)
    until(second.ready, "the second worker is ready", seconds=30 * PATIENCE)
    for number in range(6):
        keys = [f"r{number}-{at}" for at in range(300)]
        send(nats, [(key, event(key, number)) for key in keys])
        if number in (1, 3):
            victim = first if number == 1 else second
            victim.kill()
            victim.start()
        expected = dict.fromkeys(keys, number * 2.0 + 1)
        until(
            lambda keys=keys, expected=expected: answers(store, keys) == expected,
            f"round {number} is answered",
            seconds=30 * PATIENCE,
        )
    assert dead_letters(store) == []
    until(first.ready, "the first worker is ready", seconds=30 * PATIENCE)
    until(second.ready, "the second worker is ready", seconds=30 * PATIENCE)
    assert [first.stop(), second.stop()] == [0, 0]


def test_a_broker_that_comes_back_is_read_on(nats: NatsServer, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    send(nats, [(f"a{at}", event(f"a{at}", 1)) for at in range(300)])
    until(lambda: len(answers_of(store)) == 300, "300 answers", seconds=30 * PATIENCE)
    nats.stop()
    until(lambda: not worker.ready(), "the worker is not ready", seconds=20 * PATIENCE)
    nats.start()
    send(nats, [(f"b{at}", event(f"b{at}", 1)) for at in range(300)])
    until(lambda: len(answers_of(store)) == 600, "600 answers", seconds=30 * PATIENCE)
    assert worker.stop() == 0
    assert dead_letters(store) == []


def answers_of(store: str) -> list[tuple[Any, ...]]:
    tables = ask(store, "SELECT table_name FROM fourways.streams")
    return ask(store, f'SELECT id FROM "{tables[0][0]}"') if tables else []  # noqa: S608


@pytest.mark.parametrize(
    ("what", "reason", "said"),
    [
        ("stream", "TopicNotFound", "no stream NONE"),
        ("broker", "BrokerUnavailable", "does not answer"),
        ("store", "StoreUnavailable", "the prediction store"),
        ("secret", "ConfigError", "cannot be read"),
    ],
)
def test_what_is_missing_at_the_start_is_told_in_time(
    nats: NatsServer, tmp_path: Path, what: str, reason: str, said: str
) -> None:
    told = source(nats)
    store = f"sqlite:///{tmp_path}/store.db"
    if what == "stream":
        told["nats"]["stream"] = "NONE"
    elif what == "broker":
        told["nats"]["servers"] = "nats://127.0.0.1:1"
    elif what == "secret":
        told["nats"]["credentials"] = {"secretName": "none"}
    else:
        store = "postgresql://u:s3cret@127.0.0.1:1/none"
    soon = {"fourways_runtime.retry.START_SECONDS": 6.0}
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, told), soon)
    assert worker.ended(25) != 0
    words = worker.last_words()
    assert words.reason == reason
    assert said in words.message
    assert "s3cret" not in words.message


class Leader:
    """The listener of a source that reads from the start."""

    def assigned(self, partitions: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 1)

    def revoked(self, partitions: Sequence[int]) -> None: ...

    def leads(self) -> bool:
        return True


def test_a_poll_returns_no_more_events_than_were_asked_for(nats: NatsServer) -> None:
    events = NatsEvents(NatsSource.model_validate(source(nats)["nats"]), Paths())
    events.open(10)
    events.start(Leader())
    count = 2000

    async def work(jetstream: Any) -> None:
        for _ in range(0, count, 10):  # Some come while a poll waits, some between two polls.
            await asyncio.gather(*(jetstream.publish("sensors.a", b"-") for _ in range(10)))

    sending = threading.Thread(target=nats.do, args=(work,))
    sending.start()
    sizes, positions = [], []

    def read() -> bool:
        found = events.poll(4, 0.01, 0.001)
        if found is not None:
            sizes.append(len(found))
            positions.extend(found.positions)
        return len(positions) == count

    until(read, lambda: f"{count} events, not {len(positions)}", seconds=60, interval=0.0)
    sending.join()
    events.close()
    assert max(sizes) <= 4
    assert positions == list(range(1, count + 1))


def test_the_newest_position_is_known_without_a_consumer(nats: NatsServer) -> None:
    events = NatsEvents(NatsSource.model_validate(source(nats)["nats"]), Paths())
    events.open(10)
    events.start(Leader())
    nats.publish(("sensors.a", b"-", None) for _ in range(2))
    until(lambda: events.poll(4, 0.1, 0.001), "events are read")

    async def remove_consumer(jetstream: Any) -> None:
        (found,) = await jetstream.consumers_info("SENSORS")
        # While the store does not answer, nothing is read; the worker ends after a minute of that.
        assert found.config.inactive_threshold > OUTAGE_SECONDS
        await jetstream.delete_consumer("SENSORS", found.name)

    assert events.newest() == {0: 3}
    nats.do(remove_consumer)
    nats.publish(("sensors.a", b"-", None) for _ in range(3))
    assert events.newest() == {0: 6}
    assert events.problem() == ""
    events.close()
