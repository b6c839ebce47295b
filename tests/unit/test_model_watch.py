"""The watch over calls into a model: which call is overdue, and what is said of it."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fourways_operator.pods import report_of
from fourways_runtime import model_watch
from fourways_runtime.errors import ModelHangs
from fourways_runtime.model_watch import (
    ALIKE,
    MODEL_SECONDS,
    PATIENCE,
    ModelWatch,
    seconds_for,
)
from fourways_runtime.scoring.model import Tensor
from fourways_runtime.scoring.model.watched import WatchedModel
from tests.kit.models import Function


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_call_over_more_rows_has_more_time() -> None:
    assert seconds_for(0) == MODEL_SECONDS
    assert seconds_for(ALIKE) == 2 * MODEL_SECONDS
    assert seconds_for(0, 3.0) == 3.0


def test_a_call_that_returns_is_forgotten_also_where_it_fails() -> None:
    clock = Clock()
    watch = ModelWatch(clock)
    lasted = []

    def fails() -> None:
        with watch.call():
            clock.now += 7
            lasted.append(watch.longest())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    clock.now += 10_000
    assert lasted == [7]
    assert watch.longest() == 0
    assert watch.overdue() is None


def test_an_overdue_call_names_stage_and_what_it_is_about() -> None:
    clock = Clock()
    watch = ModelWatch(clock)
    with watch.doing("scoring", "chunk 3 (attempt 1)"), watch.call(2):
        clock.now += seconds_for(2)
        assert watch.overdue() is None
        clock.now += 0.1
        call = watch.overdue()
    assert call is not None
    said = str(call.hangs())
    assert said.startswith("scoring: 2 rows of chunk 3 (attempt 1); the model has not returned")
    assert call.hangs().exit_code == 75


def test_what_a_thread_does_is_its_own_and_ends_with_the_context() -> None:
    watch = ModelWatch()
    stages: list[str] = []

    def other() -> None:
        with watch.call():
            stages.extend(call.stage for call in watch._calls.values())

    with watch.doing("loading the model"):
        with watch.doing("checking the golden vectors"):
            pass
        with watch.call():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
    assert stages == ["loading the model", "scoring"]


def test_calls_that_wait_for_each_other_have_the_time_of_all() -> None:
    clock = Clock()
    watch = ModelWatch(clock)
    with watch.call(seconds=10), watch.call(seconds=10):
        clock.now += 15
        first = watch.overdue()
        assert first is not None
        assert first.limit == 10
    with watch.call(seconds=1000), watch.call(seconds=10):
        clock.now += 15
        assert watch.overdue() is None


def test_the_watch_reports_a_call_that_hangs_from_a_thread_of_its_own() -> None:
    watch = ModelWatch()
    reported: queue.Queue[ModelHangs] = queue.Queue()
    watch.start(reported.put)
    with watch.doing("warming up"), watch.call(seconds=0):
        error = reported.get(timeout=20)
    assert str(error).startswith("warming up; the model has not returned")


def test_a_watched_model_is_watched_for_as_long_as_it_answers() -> None:
    watch = ModelWatch()
    seen: list[tuple[str, int]] = []

    def answer(tensors: object) -> dict[str, object]:
        seen.extend((call.stage, call.rows) for call in watch._calls.values())
        return {"y": np.zeros(3, np.float32)}

    tensors = (Tensor("x", "float32", (None,)),), (Tensor("y", "float32", (None,)),)
    model = WatchedModel(Function(*tensors, answer), watch=watch)
    model.predict({"x": np.zeros(3, np.float32)})
    assert seen == [("scoring", 3)]
    assert watch.longest() == 0
    assert model.answering(["y"]).outputs == tensors[1]


def test_a_measured_call_bounds_later_ones_of_its_size_and_above() -> None:
    clock = Clock()
    watch = ModelWatch(clock)
    rows = 16_384
    with watch.call(ALIKE):
        clock.now += 5
    assert not watch.measured
    with watch.call(128):
        clock.now += 0.128
    with watch.call(rows):
        (call,) = watch._calls.values()
        assert call.limit == pytest.approx(MODEL_SECONDS + PATIENCE * rows * 0.001)
        clock.now += rows * 0.0001
    with watch.call(rows):
        (call,) = watch._calls.values()
        assert call.limit == pytest.approx(MODEL_SECONDS + PATIENCE * rows * 0.0001)
    with watch.call(1):
        (call,) = watch._calls.values()
        assert call.limit == seconds_for(1)


def test_a_measured_limit_is_never_above_the_one_by_rows() -> None:
    clock = Clock()
    watch = ModelWatch(clock)
    with watch.call(100):
        clock.now += 40
    with watch.call(200):
        (call,) = watch._calls.values()
        assert call.limit == seconds_for(200)


def test_the_first_large_call_is_measured_by_its_first_rows() -> None:
    sizes: list[int] = []

    def answer(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(tensors["x"]))
        return {"y": tensors["x"] * 2}

    tensors = (Tensor("x", "float32", (None,)),), (Tensor("y", "float32", (None,)),)
    model = WatchedModel(Function(*tensors, answer), watch=ModelWatch())
    x = np.arange(1000, dtype=np.float32)
    for _ in range(2):
        assert np.array_equal(model.predict({"x": x})["y"], x * 2)
    assert sizes == [128, 872, 1000]


HOLDS_THE_LOCK = """
import os, re, sys
from fourways_runtime import model_watch

model_watch.HELD_SECONDS, model_watch._WIND_SECONDS = 1.0, 0.2
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
model_watch.WATCH.start(print, file)

def predict():
    with model_watch.WATCH.call(1):
        re.match(r"(a+)+$", "a" * 60 + "b")

predict()
"""


@pytest.mark.thorough
def test_a_library_that_holds_the_lock_ends_the_process_and_is_named(tmp_path: Path) -> None:
    told = tmp_path / "termination"
    ended = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(told)], timeout=60, check=False
    )
    assert ended.returncode == 1
    state = {"terminated": {"message": told.read_text()[-4096:]}}
    report = report_of({"status": {"containerStatuses": [{"state": state}]}})
    assert report is not None
    assert report.reason == "ModelHangs"
    assert report.message.startswith("a library holds Python's lock and has not returned from ")
    assert "in match; correct the model" in report.message


def test_what_a_call_works_on_is_named_within_its_stage_and_noted_once_it_hangs() -> None:
    hung: queue.Queue[object] = queue.Queue()
    watch = ModelWatch(Clock())
    with (
        watch.doing("checking the golden vectors", note=lambda: hung.put("noted")),
        watch.at("vector 3"),
        watch.call(1, seconds=-1),
    ):
        watch.start(hung.put)
        assert hung.get(timeout=30) == "noted"
        error = hung.get(timeout=30)
    assert str(error).startswith("checking the golden vectors: 1 row of vector 3; the model has")


def test_a_note_that_does_not_return_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "_NOTE_SECONDS", 0.01)
    hung: queue.Queue[object] = queue.Queue()
    never = threading.Event()
    watch = ModelWatch(Clock())
    with watch.doing("scoring", note=never.wait), watch.call(1, seconds=-1):
        watch.start(hung.put)
        assert isinstance(hung.get(timeout=30), ModelHangs)
    never.set()
