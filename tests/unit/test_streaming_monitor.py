"""Lag and age while nothing moves, and what is said of a source that changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_runtime.errors import BrokerUnavailable
from fourways_runtime.workloads.streaming import monitor
from fourways_runtime.workloads.streaming.monitor import (
    PartitionProgress,
    StreamMonitor,
    lag_message,
)
from fourways_runtime.workloads.streaming.observed import StreamMetrics
from fourways_runtime.workloads.streaming.source_changes import EXPIRED_SECONDS, SourceChanges
from tests.kit.waiting import until


class Source:
    """The questions a monitor asks of a source."""

    def __init__(self) -> None:
        self.end: dict[int, int] = {0: 10}
        self.checked = 0
        self.away = False

    def newest(self) -> Mapping[int, int]:
        if self.away:
            raise BrokerUnavailable("away")
        return self.end

    def check(self) -> None:
        self.checked += 1


class Ledger:
    def __init__(self) -> None:
        self.pings = 0

    def ping(self) -> None:
        self.pings += 1


class Rig:
    def __init__(self) -> None:
        self.source = Source()
        self.ledger = Ledger()
        self.seconds = 5000.0
        self.progress = {0: PartitionProgress(10, None)}
        self.registry = CollectorRegistry()
        self.metrics = StreamMetrics(self.registry)
        self.build()

    def build(self) -> None:
        source: Any = self.source
        ledger: Any = self.ledger
        self.monitor = StreamMonitor(
            source, ledger, self.metrics, lambda: self.progress, lambda: self.seconds
        )

    def look(self) -> tuple[float | None, float | None]:
        """Look once, and return what it shows."""
        self.monitor.look()
        return self.sample()

    def sample(self) -> tuple[float | None, float | None]:
        """Return lag of partition 0, and the age of the oldest event."""
        return (
            self.registry.get_sample_value("fourways_stream_lag", {"partition": "0"}),
            self.registry.get_sample_value("fourways_stream_oldest_event_seconds"),
        )


def test_lag_and_age_grow_while_nothing_is_written() -> None:
    rig = Rig()
    assert rig.look() == (0, 0)
    rig.source.end = {0: 2010}
    assert rig.look() == (2000, 0)  # Read by nobody yet: its time is not known.
    rig.seconds += 7
    assert rig.look() == (2000, 7)
    rig.progress = {0: PartitionProgress(10, 4990.0)}
    assert rig.look() == (2000, 17)
    rig.progress = {0: PartitionProgress(2000, None)}
    assert rig.look() == (10, 0)
    rig.progress = {0: PartitionProgress(2010, None)}
    rig.seconds += 7
    assert rig.look() == (0, 0)
    assert rig.source.checked == 6


def test_the_oldest_event_that_waits_for_too_long_is_told_while_nothing_moves() -> None:
    rig = Rig()
    rig.seconds += 3600  # a quiet hour
    rig.look()
    assert rig.monitor.late(300) == 0
    rig.source.end = {0: 11}
    rig.look()
    rig.seconds += 301
    # Also while the monitor's own thread waits, as for a broker that hangs.
    assert rig.monitor.late(300) == 301
    rig.progress = {0: PartitionProgress(11, None)}
    rig.look()
    assert rig.monitor.late(300) == 301, "it flickers between batches"
    rig.seconds += 11
    assert rig.monitor.late(300) == 0


def test_a_lag_is_told_in_words_that_change_seldom() -> None:
    told = [lag_message(float(waited), "5m") for waited in range(301, 2400)]
    assert [text.split(" (")[0].rpartition(" than ")[2] for text in dict.fromkeys(told)] == [
        "300 s",
        "600 s",
        "1200 s",
    ]


def test_a_store_that_hangs_does_not_stop_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.01)
    rig = Rig()
    let_go = threading.Event()
    asked = threading.Event()

    def ping() -> None:
        asked.set()
        let_go.wait(60)

    monkeypatch.setattr(rig.ledger, "ping", ping)
    rig.build()
    rig.monitor.start()
    assert asked.wait(30)
    rig.source.end = {0: 15}
    until(lambda: rig.sample()[0] == 5, "the lag shows")
    rig.monitor.finish(10)
    let_go.set()


def test_with_the_broker_away_the_last_known_lag_stands_and_its_age_grows() -> None:
    rig = Rig()
    rig.source.end = {0: 12}
    rig.look()
    rig.source.away = True
    rig.seconds += 30
    assert rig.look() == (2, 30)
    rig.progress = {}
    assert rig.look() == (None, 0)


def test_what_retention_deleted_is_counted_once() -> None:
    registry = CollectorRegistry()
    changes = SourceChanges(StreamMetrics(registry))
    for _ in range(2):
        changes.expired(0, 5, 25)
    changes.expired(0, 5, 30)
    changes.expired(1, 0, 1)
    assert registry.get_sample_value("fourways_stream_expired_events_total") == 26
    assert [text.split(" before ")[0] for text in changes.warnings()] == [
        f"the broker's retention deleted the positions {places}"
        for places in (
            "5 to 24 of partition 0",
            "25 to 29 of partition 0",
            "0 to 0 of partition 1",
        )
    ]


def test_a_loss_is_told_for_a_while_after_the_last_one() -> None:
    seconds = 1000.0
    changes = SourceChanges(StreamMetrics(CollectorRegistry()), lambda: seconds)
    assert changes.recently_expired() == ""
    changes.expired(0, 5, 25)
    seconds += EXPIRED_SECONDS
    changes.expired(0, 25, 1030)
    assert changes.recently_expired().endswith("; 1,025 positions lost so far")
    seconds += EXPIRED_SECONDS
    assert "25 to 1029 of partition 0" in changes.recently_expired()
    seconds += 1
    assert changes.recently_expired() == ""
    changes.expired(0, 1030, 1031)
    assert changes.recently_expired().endswith("; 1 positions lost so far")


def test_a_restored_log_is_reported() -> None:
    registry = CollectorRegistry()
    changes = SourceChanges(StreamMetrics(registry))
    changes.restored(0, 100, 40)
    (text,) = changes.warnings()
    assert "ends at 40, below the position 100" in text
    assert registry.get_sample_value("fourways_stream_source_changes_total") == 1
