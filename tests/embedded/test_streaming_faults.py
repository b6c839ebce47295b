"""Stream workers while the store or the broker's objects change or hang: nothing lost, all told.

Each of these was found with a stream that was quiet, or looked at once: what happens to a worker
between two events, and to what it has looked up before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.kit.secret_files import secret_folder
from tests.kit.stream_rig import (
    PATIENCE,
    NatsServer,
    WorkerProcess,
    answered,
    configure,
    dead_letters,
    ready,
    stands,
)
from tests.kit.waiting import until
from tools.servers.postgres import Server

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]


@pytest.fixture
def nats(own_nats: NatsServer) -> NatsServer:
    own_nats.make_stream("S", "s")
    return own_nats


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def source(server: NatsServer, stream: str = "S", subject: str = "s") -> dict[str, Any]:
    return {"nats": {"servers": server.url, "stream": stream, "subject": subject}}


def send(server: NatsServer, *keys: str, subject: str = "s") -> None:
    server.publish((subject, json.dumps({"id": key, "x": len(key)}).encode(), None) for key in keys)


# ---------------------------------------------------------------- the store


def test_an_event_after_postgresql_was_restarted_while_the_stream_was_quiet(
    nats: NatsServer, own_server: Server, tmp_path: Path
) -> None:
    store = own_server.database()
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    send(nats, "a")
    answered(store, "a")
    own_server.stop()
    until(lambda: not worker.ready(), "an idle worker notices it", seconds=15 * PATIENCE)
    assert "the prediction store" in worker.readiness()
    own_server.start()
    send(nats, "bb")
    answered(store, "a", "bb")
    ready(worker)
    assert worker.stop() == 0
    assert dead_letters(store) == []


def test_lag_age_and_readiness_are_true_while_the_store_is_locked(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats), maxLag="3s"))
    send(nats, "a")
    answered(lite, "a")
    until(lambda: worker.metric("fourways_stream_lag{") == 0, "no lag")
    assert worker.faults() == []
    lock = sqlite3.connect(lite.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    keys = [f"k{at}" for at in range(1000)]
    send(nats, *keys)
    until(
        lambda: (
            worker.metric("fourways_stream_lag{") > 900
            and worker.metric("fourways_stream_oldest_event_seconds") > 3
        ),
        "lag and age are seen",
        seconds=20 * PATIENCE,
    )
    until(lambda: not worker.ready(), "the worker is not ready", seconds=10 * PATIENCE)
    assert "has not responded for" in worker.readiness()
    assert [fault["reason"] for fault in worker.faults()] == ["StoreUnavailable", "StreamLags"]
    lock.execute("ROLLBACK")
    lock.close()
    answered(lite, *keys)
    ready(worker)
    until(
        lambda: (
            worker.metric("fourways_stream_lag{") == 0
            and worker.metric("fourways_stream_oldest_event_seconds") == 0
        ),
        "no lag",
        seconds=10 * PATIENCE,
    )
    assert worker.stop() == 0


def test_a_store_without_room_is_named_and_is_not_asked_in_a_tight_loop(
    nats: NatsServer, disk: Callable[..., Callable[[str], None]], tmp_path: Path
) -> None:
    grow = disk(tmp_path / "small", "1m")
    store = f"sqlite:///{tmp_path}/small/store.db"
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    keys = [f"k{at:04d}" + "z" * 300 for at in range(4000)]
    send(nats, *keys)
    until(
        lambda: worker.metric("fourways_stream_resets_total") >= 4,
        "the store is full",
        seconds=30 * PATIENCE,
        ignoring=Exception,
    )
    assert "full" in worker.readiness()
    grow("64m")
    answered(store, *keys)
    ready(worker)
    assert worker.metric("fourways_stream_resets_total") < 20
    assert worker.stop() == 0
    assert dead_letters(store) == []


def test_a_rotated_password_of_the_store_is_read_again_and_a_refused_one_is_named(
    nats: NatsServer, own_server: Server, tmp_path: Path
) -> None:
    admin = own_server.database()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'first'")
        rules = own_server.data / "pg_hba.conf"
        rules.write_text("local all app scram-sha-256\nlocal all all trust\n")
        connection.execute("SELECT pg_reload_conf()")
    store = admin.replace("tester:s3cret", "app:first")
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    send(nats, "a")
    answered(admin, "a")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("ALTER ROLE app PASSWORD 'second'")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        )
    until(
        lambda: "refuses the login in its Secret" in worker.readiness(),
        worker.readiness,
        seconds=15 * PATIENCE,
    )
    assert "first" not in worker.readiness()
    send(nats, "bb")
    (tmp_path / "store-secret" / "uri").write_text(store.replace("first", "second"))
    answered(admin, "a", "bb")
    ready(worker)
    assert worker.stop() == 0


def test_a_store_that_stands_still_for_a_while_loses_and_doubles_nothing(
    nats: NatsServer, own_server: Server, tmp_path: Path
) -> None:
    store = own_server.database()
    worker = WorkerProcess(tmp_path, configure(tmp_path, store, source(nats)))
    send(nats, "a")
    answered(store, "a")
    with own_server.paused():
        send(nats, *(f"k{at}" for at in range(300)))
        until(
            lambda: "has not responded for" in worker.readiness(),
            "the worker is not ready",
            seconds=15 * PATIENCE,
        )
    answered(store, *(f"k{at}" for at in range(300)))
    ready(worker)
    assert worker.stop() == 0


# ---------------------------------------------------------------- NATS


def test_a_stream_made_anew_under_a_worker_is_read_from_its_start(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats)))
    send(nats, "a", "a", "a")
    answered(lite, "a")
    nats.do(lambda jetstream: jetstream.delete_stream("S"))
    nats.make_stream("S", "s")
    keys = ["bb", "ccc", "dddd", "eeeee"]
    for key in keys:
        send(nats, key)
    answered(lite, "a", *keys)
    ready(worker)
    assert worker.metric("fourways_stream_source_changes_total") == 1
    assert "deleted and recreated" in worker.log.read_text()
    assert worker.stop() == 0


def test_a_stream_that_stays_away_ends_the_worker_with_the_reason(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    soon = {"fourways_runtime.io.brokers.source.ABSENT_SECONDS": 2.0}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats)), soon)
    ready(worker)
    nats.do(lambda jetstream: jetstream.delete_stream("S"))
    assert worker.ended(30) == 4
    assert worker.last_words().reason == "TopicNotFound"


def test_a_position_above_the_end_of_the_stream_is_told_and_the_stream_is_read_again(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats)))
    send(nats, "a")
    answered(lite, "a")
    assert worker.stop() == 0
    store = sqlite3.connect(lite.removeprefix("sqlite:///"))
    with store:
        store.execute("UPDATE positions SET next = 100")  # As if the stream was restored.
    store.close()
    send(nats, "bb")
    worker.start()
    answered(lite, "a", "bb")
    ready(worker)
    assert "restored to an older state" in worker.readiness()
    assert worker.stop() == 0


def test_what_retention_deletes_of_other_subjects_is_no_loss(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    nats.make_stream("SHARED", "ours", "theirs")
    told = configure(tmp_path, lite, source(nats, "SHARED", "ours"))
    quiet = {"fourways_runtime.io.brokers.nats_source._QUIET_SECONDS": 0.2}
    worker = WorkerProcess(tmp_path, told, quiet)
    send(nats, "a", subject="ours")
    answered(lite, "a")
    send(nats, *["k"] * 40, subject="theirs")
    until(lambda: stands(lite) == {0: 21}, lambda: stands(lite), seconds=10 * PATIENCE)
    assert worker.stop() == 0
    nats.do(lambda jetstream: jetstream.purge_stream("SHARED", seq=20))
    send(nats, "bb", subject="ours")
    worker.start()
    answered(lite, "a", "bb")
    assert worker.metric("fourways_stream_expired_events_total") == 0
    assert worker.stop() == 0


def test_what_the_retention_of_a_stream_deletes_unread_is_counted_and_told(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats)))
    send(nats, "a")
    answered(lite, "a")
    assert worker.stop() == 0
    send(nats, *(f"k{at}" for at in range(10)))
    nats.do(lambda jetstream: jetstream.purge_stream("S", seq=8))
    worker.start()
    answered(lite, "k6", "k9")
    ready(worker)
    assert worker.metric("fourways_stream_expired_events_total") == 6
    assert "deleted the positions 2 to 7 of partition 0" in worker.readiness()
    (fault,) = worker.faults()
    assert fault["reason"] == "EventsExpired"
    assert "deleted the positions 2 to 7 of partition 0" in fault["message"]
    assert worker.stop() == 0


def test_a_mirror_is_read_and_a_stream_with_sources(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    from nats.js.api import StreamConfig, StreamSource

    origin = StreamSource(name="S")
    for name, role in (("M", {"mirror": origin}), ("G", {"sources": [origin]})):
        config = StreamConfig(name=name, **role)  # type: ignore[arg-type]
        nats.do(lambda jetstream, config=config: jetstream.add_stream(config))
    send(nats, "a", "bb")
    for number, name in enumerate("MG"):
        root = tmp_path / name
        root.mkdir()
        store = f"sqlite:///{root}/store.db"
        worker = WorkerProcess(root, configure(root, store, source(nats, name)))
        answered(store, "a", "bb")
        if not number:
            send(nats, "ccc")
            answered(store, "ccc")
        assert worker.stop() == 0


@pytest.mark.parametrize("retention", ["interest", "workqueue"])
def test_a_stream_that_deletes_events_on_delivery_is_refused(
    nats: NatsServer, lite: str, tmp_path: Path, retention: str
) -> None:
    from nats.js.api import RetentionPolicy, StreamConfig, StreamSource

    nats.do(lambda jetstream: jetstream.add_stream(name="R", subjects=["r"], retention=retention))
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, source(nats, "R", "r")))
    assert worker.ended(25) == 4
    words = worker.last_words()
    assert words.reason == "RetentionLosesEvents"
    assert f"the stream R has the retention {retention}" in words.message
    assert "Set its retention to limits" in words.message
    # What the message advises works: a stream with limits, and a queue for the other readers.
    kept = StreamConfig(name="R", subjects=["r"], retention=RetentionPolicy.LIMITS)
    if retention == "workqueue":
        nats.do(lambda jetstream: jetstream.delete_stream("R"))
        nats.do(lambda jetstream: jetstream.add_stream(kept))
    else:
        nats.do(lambda jetstream: jetstream.update_stream(kept))
    queue = StreamConfig(
        name="Q", sources=[StreamSource(name="R")], retention=RetentionPolicy.WORK_QUEUE
    )
    nats.do(lambda jetstream: jetstream.add_stream(queue))
    worker.start()
    send(nats, "a", subject="r")
    answered(lite, "a")

    async def queued(jetstream: Any) -> int:
        return int((await jetstream.stream_info("Q")).state.messages)

    until(lambda: nats.do(queued) == 1, "the queue has the event", seconds=20 * PATIENCE)
    assert worker.stop() == 0


def test_a_rotated_password_of_nats_is_read_again_and_a_refused_one_is_named(
    nats: NatsServer, lite: str, tmp_path: Path
) -> None:
    secret = secret_folder(tmp_path / "secrets" / "broker")
    (secret / "username").write_text("fourways")
    (secret / "password").write_text("first")
    nats.stop()
    nats.password = "first"
    nats.start()
    told = source(nats)
    told["nats"]["credentials"] = {"secretName": "broker"}
    worker = WorkerProcess(tmp_path, configure(tmp_path, lite, told))
    send(nats, "a")
    answered(lite, "a")
    nats.stop()
    nats.password = "second"
    nats.start()
    until(
        lambda: "refuses the login in the Secret broker" in worker.readiness(),
        worker.readiness,
        seconds=15 * PATIENCE,
    )
    (secret / "password").write_text("second")
    send(nats, "bb")
    answered(lite, "a", "bb")
    ready(worker)
    assert worker.stop() == 0
