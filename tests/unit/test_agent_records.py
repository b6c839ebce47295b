"""What a device counts and tells of its records: with the owner's word, once, and also later."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_agent import records as module
from fourways_agent.records import RecordCounter, RecordFile, RecordWindow, tell
from fourways_agent.state import DeviceSettings, Store
from fourways_runtime.bundle_layout import digest_of
from fourways_runtime.scoring.device_report import (
    MAX_COUNTED,
    DeviceReport,
    Tally,
    encode,
    profile_of,
    read_report,
)
from tests.kit.drift_tables import CONTRACT, outputs_of, profiler, table, training_profile

PROFILE = training_profile()
DIGEST = digest_of(PROFILE)
KNOWN = profiler()


class Gateway:
    """Takes reports, or does not."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {"window_seconds": 600}
        self.got: list[bytes] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(self.path)
                outer.got.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(json.dumps(outer.answer).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def last(self) -> DeviceReport:
        return read_report(profile_of(self.got[-1])[0], KNOWN)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    it = Gateway()
    yield it
    it.server.shutdown()
    it.server.server_close()


class Device:
    """A device by its state folder, with a clock."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.store = Store(folder)
        url = f"http://127.0.0.1:{gateway.server.server_port}"
        self.settings = DeviceSettings(url, "vad", "door", "key.pem", report_drift="yes")
        self.store.prepare()
        self.store.remember(self.settings)
        self.counter = RecordCounter(self.store, CONTRACT, PROFILE)
        self.now = 1_000.0

    def scores(self, rows: int, seed: int = 1, rejects: int = 0) -> None:
        columns = table(np.random.default_rng(seed), rows)
        self.counter.notes.note_columns(columns, outputs_of(columns), rejects)
        self.counter.flush()

    def tells(self) -> bool:
        return tell(self.store, self.settings, lambda: self.now)

    @property
    def window(self) -> RecordWindow:
        return RecordFile(self.store).read()


@pytest.fixture
def device(tmp_path: Path, gateway: Gateway) -> Device:
    return Device(tmp_path / "device", gateway)


def test_what_was_counted_is_told_by_bin(device: Device, gateway: Gateway) -> None:
    assert not device.tells(), "nothing was scored"
    device.scores(100, rejects=7)
    assert device.tells()
    assert gateway.asked == ["/bundles/vad/door/drift"]
    told = gateway.last
    assert (told.profile, told.records, told.rejects) == (DIGEST, 100, 7)
    columns = table(np.random.default_rng(1), 100)
    counts = KNOWN.count(columns, outputs_of(columns))
    expected = [*counts.inputs.values(), *counts.outputs.values()]
    assert told.values.tolist() == np.concatenate(expected).tolist()


def test_without_the_owners_word_nothing_is_kept_or_sent(device: Device, gateway: Gateway) -> None:
    device.scores(100)
    device.settings = replace(device.settings, report_drift="")
    device.store.remember(device.settings)
    assert not device.tells()
    assert not (device.store.folder / "records.json").exists()
    # A program that started while it was allowed.
    device.scores(100)
    assert not list(device.store.folder.glob("records*.json"))
    assert gateway.got == []


def test_a_report_holds_the_window_and_a_repeated_one_is_the_same(
    device: Device, gateway: Gateway
) -> None:
    device.scores(100)
    device.tells()
    device.now += 60
    device.tells()
    assert gateway.got[0] == gateway.got[1], "nothing new: the same report again"
    device.scores(50)
    device.now += 200
    device.tells()
    assert gateway.last.records == 150
    device.now += 400  # the first hundred were told more than 600 s ago
    device.tells()
    assert gateway.last.records == 50
    device.now += 600
    assert device.tells(), "the end of a window is told once"
    assert gateway.last.records == 0
    assert not device.tells()
    sequences = [json.loads(raw)["sequence"] for raw in gateway.got]
    assert sequences == sorted(sequences)
    assert len({json.loads(raw)["device"] for raw in gateway.got}) == 1


def test_what_was_scored_offline_is_told_later_and_counts_a_whole_window(
    device: Device, gateway: Gateway
) -> None:
    gateway.status = 503
    for _ in range(20):
        device.scores(30)
        device.now += 86_400
        assert not device.tells()
    assert len(device.window.sent) == 0
    gateway.status = 200
    assert device.tells()
    assert gateway.last.records == 600
    device.now += 599
    device.tells()
    assert gateway.last.records == 600
    device.now += 1
    device.tells()
    assert gateway.last.records == 0


def test_a_report_whose_response_was_lost_counts_once(device: Device, gateway: Gateway) -> None:
    device.scores(100)
    gateway.answer = "no object"
    assert not device.tells()
    device.scores(10)
    gateway.answer = {"window_seconds": 600}
    assert device.tells()
    assert [read_report(profile_of(raw)[0], KNOWN).records for raw in gateway.got] == [100, 110]
    assert device.window.whole.records == 110


def test_counts_survive_a_restart_and_one_damaged_copy(device: Device, gateway: Gateway) -> None:
    device.scores(100)
    (device.store.folder / "records.json").write_bytes(b"\0" * 100)
    again = RecordCounter(device.store, CONTRACT, PROFILE)
    columns = table(np.random.default_rng(2), 20)
    again.notes.note_columns(columns, outputs_of(columns), 0)
    again.flush()
    device.tells()
    assert gateway.last.records == 120
    for copy in ("records.json", "records.copy.json"):
        (device.store.folder / copy).write_bytes(b"{}")
    device.scores(5)
    device.tells()
    assert gateway.last.records == 5


def test_another_profile_starts_anew(device: Device, gateway: Gateway) -> None:
    device.scores(100)
    device.tells()
    other = training_profile(seed=3)
    device.counter = RecordCounter(device.store, CONTRACT, other)
    device.scores(30)
    device.tells()
    document, digest = profile_of(gateway.got[-1])
    assert (digest, document["records"]) == (digest_of(other), 30)


def test_slices_of_a_window_are_bounded(device: Device) -> None:
    for _ in range(40):
        device.scores(1)
        device.now += 25
        device.tells()
    assert len(device.window.sent) <= module._SLICES + 1
    assert device.window.whole.records <= (600 + 100) / 25


@pytest.mark.parametrize(("said", "kept"), [(1.0, 60.0), (1e12, 604_800.0), (float("nan"), 60.0)])
def test_a_gateway_cannot_make_a_device_keep_counts_for_ever(said: float, kept: float) -> None:
    assert RecordWindow().arrived(0.0, said).window == kept


def test_a_clock_that_jumps_loses_counts_and_never_repeats_them(
    device: Device, gateway: Gateway
) -> None:
    device.scores(100)
    device.tells()
    device.now = 5.0
    device.scores(10)
    device.tells()
    assert gateway.last.records == 10


def test_more_records_than_a_report_holds_are_scaled() -> None:
    counts = Tally.of(KNOWN.count(t := table(np.random.default_rng(1), 100), outputs_of(t)), KNOWN)
    huge = counts
    for _ in range(30):
        huge = huge.plus(huge)
    found = read_report(profile_of(encode(huge, DIGEST, "0" * 16, 1))[0], KNOWN)
    assert found.records == MAX_COUNTED
    share = found.values / MAX_COUNTED
    (exact,) = (np.concatenate([*counts.inputs, *counts.outputs]) / 100,)
    assert np.allclose(share, exact, atol=1e-6)


def test_a_full_disk_or_a_held_lock_costs_counts_and_no_prediction(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device.store.folder / "records.lock").mkdir()
    device.scores(100)
    assert not device.tells()
