"""A store or a sink that stands still is noticed; one that is only slow is not."""

from __future__ import annotations

import threading

import pytest

from fourways_runtime.errors import SinkUnavailable, StoreUnavailable, Unavailable
from fourways_runtime.workloads.batch import place_watch
from fourways_runtime.workloads.batch.place_watch import SINK, STORE, PlaceWatch
from tests.kit.waiting import until


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> list[Unavailable]:
    monkeypatch.setattr(place_watch, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(place_watch, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(place_watch, "LOOK_SECONDS", 0.01)
    return []


@pytest.mark.parametrize(("place", "kind"), [(STORE, StoreUnavailable), (SINK, SinkUnavailable)])
@pytest.mark.parametrize("hangs", [True, False])
def test_a_place_that_does_not_answer_is_named_with_the_step(
    stuck: list[Unavailable], place: str, kind: type[Unavailable], hangs: bool
) -> None:
    watch, forever = PlaceWatch(), threading.Event()

    def probe() -> None:
        if hangs:
            forever.wait()
        raise OSError("connection refused")

    watch.ask_by(place, probe)
    watch.start(stuck.append)
    with watch.step(place, "publishing the run"):
        until(lambda: bool(stuck), "it is noticed", seconds=10)
    forever.set()
    assert type(stuck[0]) is kind
    assert str(stuck[0]) == f"publishing the run: {place} has not answered for 0 s"


def test_a_long_call_into_a_place_that_answers_goes_on(stuck: list[Unavailable]) -> None:
    watch, asked = PlaceWatch(), []
    watch.ask_by(STORE, lambda: asked.append(1))
    watch.start(stuck.append)
    with watch.step(STORE, "completing the run"):
        until(lambda: len(asked) > 30, "it is asked for longer than the limit", seconds=20)
    assert stuck == []


def test_nothing_is_asked_while_nothing_is_called(stuck: list[Unavailable]) -> None:
    watch, asked = PlaceWatch(), []
    watch.ask_by(STORE, lambda: asked.append(1))
    watch.ask_by(SINK, lambda: asked.append(2))
    watch.start(stuck.append)
    with watch.step(SINK, "opening the sink"):
        until(lambda: len(asked) > 5, "the sink is asked", seconds=20)
    assert set(asked) == {2}
    assert stuck == []
