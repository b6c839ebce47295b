"""What permanent workers score is counted over a window, whichever path a record takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import Contract, Monitoring
from fourways_http import Request
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring import live_profile
from fourways_runtime.scoring.live_profile import LiveProfile
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.profile import RecordProfiler, make_profile
from fourways_runtime.v2.request import RequestReader
from fourways_runtime.v2.scorer import RequestScorer
from fourways_runtime.v2.templates import RequestTemplates, UnparsedRequest
from fourways_runtime.workloads import drift_watch
from fourways_runtime.workloads.drift_watch import watch_drift
from fourways_runtime.workloads.streaming.scoring import EventScorer
from tests.kit.models import Function
from tests.kit.waiting import until

NAMES = ("a", "b", "c")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
WINDOW = 120.0


def contract(text: bool = False) -> Contract:
    inputs: list[dict[str, Any]] = [
        {"name": "a", "type": "float32"},
        {"name": "b", "type": "float32", "range": {"max": 100}},
        {"name": "c", "type": "float32", "nullable": True},
    ]
    if text:
        inputs.append({"name": "word", "type": "string"})
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": inputs,
            "outputs": [{"name": "y", "type": "float32", "tensor": "y"}],
        }
    )


def model(text: bool = False) -> Function:
    if text:
        tensors = (
            *(Tensor(n, "float32", (None,)) for n in NAMES),
            Tensor("word", "string", (None,)),
        )
        return Function(tensors, (Tensor("y", "float32", (None,)),), lambda x: {"y": x["a"] * 2})
    return Function(
        (Tensor("x", "float32", (None, 3)),),
        (Tensor("y", "float32", (None, 1)),),
        lambda x: {"y": x["x"][:, :1] * 2},
    )


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def columns(rows: int = 2_000, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {n: random.normal(0, 1, rows).astype(np.float32) for n in NAMES}
    found["word"] = random.choice(["up", "down"], rows).astype(object)
    return found


def live(clock: Clock, text: bool = False, *, window: float = WINDOW) -> LiveProfile:
    known = columns()
    made = make_profile(contract(text), known, {"y": known["a"] * 2})
    names = [field.name for field in contract(text).flat_inputs]
    return LiveProfile(
        RecordProfiler(made), names, window=window, max_drift=0.2, clock=clock, now=lambda: NOW
    )


def compared(found: LiveProfile, clock: Clock) -> dict[str, bool]:
    """Return what drifted, after a slice of the window."""
    clock.seconds += WINDOW / live_profile.SLICES
    found.count()
    return {each.name: each.drifted for each in found.fields}


def block(rows: int, seed: int = 2, **shifted: float) -> Any:
    made = columns(rows, seed)
    return np.stack([made[n] + np.float32(shifted.get(n, 0)) for n in NAMES], axis=1)


# ---------------------------------------------------------------- the window


def test_a_drift_is_told_once_its_slice_is_complete_and_leaves_with_the_window(
    clock: Clock,
) -> None:
    found = live(clock)
    rows = block(300, b=5)
    found.note_rows(300, rows, {"y": rows[:, 0] * 2})
    found.count()
    assert found.status is None
    assert compared(found, clock) == {"a": False, "b": True, "c": False, "y": False}
    assert found.status is not None
    assert (found.status.drifted, found.status.records) == (1, 300)
    assert found.status.fields[0].name == "b"
    for _ in range(live_profile.SLICES - 1):
        assert compared(found, clock)["b"]
    assert compared(found, clock) == {}
    assert found.status is None


def test_slices_are_judged_together(clock: Clock) -> None:
    """No slice alone has enough records."""
    found = live(clock)
    told = []
    for seed in range(live_profile.SLICES):
        rows = block(20, seed, b=5)
        found.note_rows(20, rows, {"y": rows[:, 0] * 2})
        told.append(compared(found, clock).get("b", False))
    assert not told[0]
    assert told[-1]


def test_what_waits_is_bounded_and_large_batches_are_sampled(clock: Clock) -> None:
    found = live(clock)
    rows = block(100_000, b=5)
    for _ in range(50):
        found.note_rows(len(rows), rows, {"y": rows[:, 0] * 2})
    assert not found.has_room
    assert len(found._blocks) == 1
    assert compared(found, clock)["b"]
    assert found.status is not None
    assert found.status.records == live_profile.ROOM // 3
    assert found.has_room


def test_rejects_are_a_share_of_the_records(clock: Clock) -> None:
    found = live(clock)
    some = columns(300, 4)
    found.note_columns(some, {"y": some["a"] * 2}, rejects=100)
    compared(found, clock)
    assert found.status is not None
    assert found.status.rejects == 0.25


# ---------------------------------------------------------------- the paths of a request


def request(rows: Any, **more: Any) -> Request:
    data = [None if np.isnan(x) else float(x) for row in rows for x in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3], "data": data}
    return Request(b"POST", b"/", [], json.dumps({"inputs": [tensor], **more}).encode())


@pytest.mark.parametrize("together", [1, 7])
@pytest.mark.parametrize("shape", [1, 3])
def test_requests_are_counted_alone_and_together(clock: Clock, together: int, shape: int) -> None:
    spec = contract()
    scorer, reader = (
        RequestScorer(spec, model(), 1024),
        RequestTemplates(RequestReader(spec, ["x"], 8)),
    )
    found = scorer.profile = live(clock)
    reader.take(request(block(shape)))
    for seed in range(0, 420, together):
        asked = [reader.take(request(block(shape, seed + at, b=5))) for at in range(together)]
        assert all(isinstance(one, UnparsedRequest) for one in asked)
        scorer.score(asked)
        found.count()
    assert compared(found, clock) == {"a": False, "b": True, "c": False, "y": False}
    assert found.status is not None
    assert found.status.records == 420 * shape


def test_requests_that_take_the_general_way_are_counted_with_their_rejects(clock: Clock) -> None:
    spec = contract()
    scorer, reader = RequestScorer(spec, model(), 1024), RequestReader(spec, ["x"], 512)
    found = scorer.profile = live(clock)
    rows = block(400, c=5)
    rows[:100, 2] = np.nan
    rows[:40, 1] = 1_000
    scorer.score([reader.read(request(rows, parameters={"partial": True}))])
    assert compared(found, clock) == {"a": False, "b": False, "c": True, "y": False}
    assert found.status is not None
    assert (found.status.records, found.status.rejects) == (360, 0.1)
    missing = next(each.missing for each in found.fields if each.name == "c")
    assert missing == pytest.approx(60 / 360, rel=0.01)


@pytest.mark.parametrize("text", [False, True])
def test_events_are_counted(clock: Clock, text: bool) -> None:
    spec, function = contract(text), model(text)
    scorer = EventScorer(spec, function, Pipeline(spec, function), 512)
    found = scorer.profile = live(clock, text)
    made = columns(300, 3)
    made["b"] += np.float32(5)
    documents = [
        {
            "id": at,
            **{n: float(made[n][at]) for n in NAMES},
            **({"word": made["word"][at]} if text else {}),
        }
        for at in range(300)
    ]
    values = [json.dumps(each).encode() for each in documents]
    scorer.score(Events([0] * 300, range(300), [None] * 300, values, lambda at: ()))
    expected = {"a": False, "b": True, "c": False, "y": False}
    assert compared(found, clock) == expected | ({"word": False} if text else {})


# ---------------------------------------------------------------- metrics


def test_the_last_comparison_is_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_watch, "COUNT_SECONDS", 0.01)
    monkeypatch.setattr(live_profile, "SLICES", 6_000)
    registry, known = CollectorRegistry(), columns()
    made = make_profile(contract(), known, {"y": known["a"] * 2})
    settings = Monitoring.model_validate({"profile": {"uri": "file:///p.json"}, "window": "1m"})
    found = watch_drift(made, settings, contract(), registry)
    assert found is not None
    rows = block(500, b=5)
    found.note_rows(500, rows, {"y": rows[:, 0] * 2})
    labels = {"side": "input", "field": "b"}
    until(
        lambda: registry.get_sample_value("fourways_drift_detected", labels) == 1.0,
        "the drift is in no metric",
    )
    psi = registry.get_sample_value("fourways_drift_psi", labels)
    assert psi is not None
    assert psi > 1
    assert registry.get_sample_value("fourways_drift_ks", labels) is not None
    assert registry.get_sample_value("fourways_drift_records") == 500
    quiet = {"side": "output", "field": "y"}
    assert registry.get_sample_value("fourways_drift_detected", quiet) == 0.0


def test_without_a_profile_nothing_is_watched() -> None:
    assert watch_drift(None, None, contract(), CollectorRegistry()) is None
