"""A store or a sink that stands still is noticed; one that is only slow is not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fourways_runtime.errors import (
    PublishFailed,
    SinkUnavailable,
    StoreUnavailable,
    Unavailable,
)
from fourways_runtime.workloads import place_watch
from fourways_runtime.workloads.batch.ray_engine import RayWorker
from fourways_runtime.workloads.edge import publish
from fourways_runtime.workloads.place_watch import HSM, PUBLISH, SINK, STORE, PlaceWatch
from tests.kit.batch_world import World
from tests.kit.edge_plane import edge_config
from tests.kit.waiting import until


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> list[Unavailable]:
    monkeypatch.setattr(place_watch, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(place_watch, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(place_watch, "LOOK_SECONDS", 0.01)
    return []


@pytest.mark.parametrize(
    ("place", "kind"),
    [(STORE, StoreUnavailable), (SINK, SinkUnavailable), (PUBLISH, PublishFailed)],
)
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


def test_a_call_into_a_place_that_cannot_be_asked_is_limited(stuck: list[Unavailable]) -> None:
    watch = PlaceWatch()
    watch.limit(HSM)
    watch.start(stuck.append)
    with watch.step(HSM, "signing"):
        until(lambda: bool(stuck), "it is noticed", seconds=10)
    assert str(stuck[0]) == f"signing: {HSM} has not answered for 0 s"


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


def test_a_folder_of_bundles_that_hangs_ends_the_build_with_its_name(
    stuck: list[Unavailable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forever = threading.Event()

    class Gone:
        """A mount whose server is gone: no call returns."""

        def size(self, name: str) -> int:
            forever.wait()
            return 0

    monkeypatch.setattr(publish, "place_of", lambda config, target: Gone())
    watch, config = PlaceWatch(), edge_config(tmp_path)
    watch.start(stuck.append)
    with publish.watched_place(config, "door", watch, "publishing the bundle"):
        until(lambda: bool(stuck), "it is noticed", seconds=10)
    forever.set()
    assert type(stuck[0]) is PublishFailed
    assert str(stuck[0]).startswith(f"publishing the bundle for target door: {PUBLISH} has not")


def test_an_actor_of_a_ray_cluster_ends_where_the_sink_hangs(
    stuck: list[Unavailable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forever = threading.Event()

    def hang(worker: RayWorker) -> None:
        places = worker._context.places
        places.ask_by(SINK, forever.wait)
        with places.step(SINK, "writing chunk 3"):
            forever.wait()

    monkeypatch.setattr(RayWorker, "_work_on", hang)
    config = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "shop").config()
    reason, message = RayWorker(config.model_dump_json(by_alias=True), "r1", "/a.1").work()
    forever.set()
    assert reason == "SinkUnavailable"
    assert message == "writing chunk 3: the sink has not answered for 0 s"
