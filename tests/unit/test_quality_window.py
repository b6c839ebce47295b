"""Labels of a stream's predictions: equal to an offline count, whatever order labels come in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import QualityStatus, RuntimeConfig
from fourways_api.runtime_config import StreamConfig
from fourways_runtime.io.brokers.topic import TopicEvent
from fourways_runtime.io.store import StreamDeclaration, open_database, open_stream_writer
from fourways_runtime.io.store import past as past_predictions
from fourways_runtime.io.store.database import Database
from fourways_runtime.io.store.past import PAST_ROW, Compared, past_batches
from fourways_runtime.io.store.streams.stream import Fenced, Move
from fourways_runtime.scoring.late_truth import PastBatch, labelled
from fourways_runtime.workloads import quality_watch, truth_topic
from fourways_runtime.workloads.quality_watch import QualityWatch, measure_window
from fourways_runtime.workloads.truth import MIN_LABELS
from tests.kit.batch_world import World
from tests.kit.late_labels import Label, Predicted, offline, truth
from tests.kit.stores import commit, contract, predictions

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = [f"c{at}" for at in range(60)]
METRICS = ["AUC", "MAE", "LogLoss", "Calibration"]
SETTINGS = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "y",
    "metrics": METRICS,
    "window": "24h",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")


@pytest.fixture
def store(world: World) -> Iterator[Database]:
    with closing(open_database(world.uri)) as database:
        yield database


def config(world: World, **changes: Any) -> RuntimeConfig:
    return world.config(quality={**SETTINGS, **changes})


def keep(store: Database, batches: list[Predicted], output: str = "y") -> None:
    for at, found in batches:
        made = {key: value for key, value in found.items() if value is not None}
        gone = [key for key, value in found.items() if value is None]
        whose = ("n", "churn", output, store.time(at))
        if made:
            numbers = np.array(list(made.values()), "<f8").tobytes()
            keys = orjson.dumps(list(made))
            store.change(PAST_ROW, (*whose, len(made), keys, numbers, None))
        if gone:
            store.change(PAST_ROW, (*whose, len(gone), orjson.dumps(gone), None, None))


def told(status: QualityStatus) -> dict[str, float]:
    return {"labels": status.labels, **{each.name: each.value for each in status.metrics}}


def scored(random: np.random.Generator, count: int) -> list[Predicted]:
    """Predictions of some keys every few minutes; some are deleted."""
    found: list[Predicted] = []
    at = START
    for _ in range(count):
        at += timedelta(minutes=float(random.uniform(1, 30)), microseconds=7)
        keys = random.choice(KEYS, 20, replace=False).tolist()
        values = {key: float(random.uniform(0, 1)) for key in keys}
        found.append((at, {**values, **dict.fromkeys(keys[:2])}))
    return found


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(at, marks=pytest.mark.thorough) for at in (2, 3))]
)
def test_quality_is_that_of_an_offline_count(world: World, store: Database, seed: int) -> None:
    """Late, doubled, corrected, unordered and unknown labels, while keys are scored again."""
    random = np.random.default_rng(seed)
    batches = scored(random, 40)
    keep(store, batches)
    end = batches[-1][0] + timedelta(hours=1)
    span = (end - START).total_seconds()
    labels: list[Label] = []
    for _ in range(5):
        fresh = [
            (str(random.choice(KEYS)), int(random.integers(0, 2)),
             START + timedelta(seconds=float(random.uniform(0, span))))
            for _ in range(120)
        ]  # fmt: skip
        doubled = [labels[at] for at in random.integers(0, len(labels), 20)] if labels else []
        corrected = [(k, 1 - v, t + timedelta(seconds=1)) for k, v, t in fresh[::7]]
        same_moment = [(key, 1, made) for made, found in batches[::9] for key in list(found)[2:4]]
        labels = [*labels, *fresh, *doubled, *corrected, *same_moment, ("nobody", 1, end)]
        # Labels of one key with equal times count in the order of the table.
        random.shuffle(labels)
        truth(world, labels)
        now = end
        found = measure_window(config(world), config(world).quality, store, "churn", now)  # type: ignore[arg-type]
        expected = offline(labels, batches, now - timedelta(hours=24))
        assert told(found) == pytest.approx(expected, rel=1e-5)
        assert found.message is None


def test_only_predictions_of_the_window_count_and_older_ones_are_deleted(
    world: World, store: Database
) -> None:
    random = np.random.default_rng(1)
    batches = scored(random, 60)
    keep(store, batches)
    labels = [
        (key, int(random.integers(0, 2)), made + timedelta(seconds=30))
        for made, found in batches
        for key, value in found.items()
        if value is not None
    ]
    truth(world, labels)
    now = batches[-1][0] + timedelta(minutes=5)
    settings = config(world, window="2h")
    found = measure_window(settings, settings.quality, store, "churn", now)  # type: ignore[arg-type]
    since = now - timedelta(hours=2)
    assert told(found) == pytest.approx(offline(labels, batches, since), rel=1e-5)
    kept = [made for made, _ in batches if made >= since]
    ((oldest,),) = store.rows("SELECT min(computed_at) FROM @past_predictions")
    assert datetime.fromisoformat(oldest) == kept[0]
    assert found.since == kept[0].strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_oldest_of_too_many_predictions_are_deleted(
    world: World, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_watch, "MAX_PREDICTIONS", 50)
    batches = scored(np.random.default_rng(2), 9)  # 20 each
    keep(store, batches)
    truth(world, [])
    found = measure_window(config(world), config(world).quality, store, "churn", batches[-1][0])  # type: ignore[arg-type]
    kept = list(past_batches(store, "n", "churn", "y", START))
    # A micro-batch with deletions is two rows, and each row counts as four predictions more.
    assert sum(len(each.keys) + 4 for each in kept) == 34
    assert kept[-1].at == past_predictions.microseconds(batches[-1][0])
    assert found.since == batches[-2][0].strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found.message == f"0 labels have a prediction: the metrics need {MIN_LABELS}"


def test_without_predictions_there_is_nothing_to_read(world: World, store: Database) -> None:
    found = measure_window(config(world), config(world).quality, store, "churn", START)  # type: ignore[arg-type]
    assert (found.labels, found.message) == (0, "no predictions in the window so far")


def test_of_two_predictions_for_a_key_in_one_batch_the_last_one_counts() -> None:
    batches = [PastBatch(10, ["a", "a"], [0.1, 0.2]), PastBatch(20, ["b"], [0.5])]
    keys, times = np.array(["a", "b", "b"], object), np.array([10, 19, 20])
    assert labelled(batches, keys, times) == ([0.2, 0.5], [0, 2])


# ---------------------------------------------------------------- what the stream writes


def declared(world: World, **changes: Any) -> StreamDeclaration:
    settings = {"compared": Compared("y"), **changes}
    outputs = contract(key="string")
    return StreamDeclaration("n", "churn", "v1", "sha256:1", outputs, "k", **settings)


def kept(store: Database, name: str = "y") -> list[tuple[list[Any], list[Any] | None]]:
    return [(each.keys, each.values) for each in past_batches(store, "n", "churn", name, START)]


def test_the_stream_keeps_each_prediction_with_its_position(world: World, store: Database) -> None:
    with closing(open_stream_writer(world.uri, declared(world))) as writer:
        writer.begin({0: 0})
        commit(writer, [Move(0, 0, 3)], predictions(["a", "b", "a"], y=[0.1, 0.2, 0.3]))
        commit(writer, [Move(0, 3, 5)], predictions(["a"], y=[0.4]), deleted=["b"])
        with pytest.raises(Fenced):
            commit(writer, [Move(0, 9, 10)], predictions(["a"], y=[0.9]))
        assert kept(store) == [
            (["a", "b", "a"], [0.1, 0.2, 0.3]),
            (["a"], [0.4]),
            (["b"], None),
        ]
    # Another output of the same contract starts anew; without quality, nothing is kept.
    with closing(open_stream_writer(world.uri, declared(world, compared=None))) as writer:
        commit(writer, [Move(0, 5, 6)], predictions(["a"], y=[0.5]))
    assert kept(store) == []


def test_of_a_share_of_the_keys_all_predictions_and_labels_are_compared(
    world: World, store: Database
) -> None:
    """A stream with many keys: of those that are chosen, none is missing on either side."""
    names = [f"k{at}" for at in range(1000)]
    compared = Compared("y", 0.1)
    with closing(open_stream_writer(world.uri, declared(world, compared=compared))) as writer:
        writer.begin({0: 0})
        made = predictions(names, y=np.linspace(0, 1, 1000))
        commit(writer, [Move(0, 0, 1000)], made, deleted=["k1000", "k1001"])
    ((keys, values), *gone) = kept(store, compared.name)
    assert 70 < len(keys) < 130
    assert values == pytest.approx([int(key[1:]) / 999 for key in keys])
    assert all(each is None for _, each in gone)
    now = datetime.now(UTC)
    truth(world, [(key, at % 2, now) for at, key in enumerate(names)])
    settings = config(world, share="10%")
    found = measure_window(settings, settings.quality, store, "churn", now)  # type: ignore[arg-type]
    assert found.labels == len(keys)
    # With another share, keys would be missing before the change: it starts anew.
    with closing(open_stream_writer(world.uri, declared(world))):
        assert kept(store, compared.name) == []


def test_texts_are_kept_as_texts(world: World, store: Database) -> None:
    texts = contract({"name": "y", "type": "string"}, key="int64")
    declaration = StreamDeclaration(
        "n", "churn", "v1", "sha256:1", texts, "k", compared=Compared("y", text=True)
    )
    with closing(open_stream_writer(world.uri, declaration)) as writer:
        writer.begin({0: 0})
        names = np.array(["é", "b"], object)
        commit(writer, [Move(0, 0, 2)], predictions([2**62, 7], y=names))
    assert kept(store, "y text") == [([2**62, 7], ["é", "b"])]


# ---------------------------------------------------------------- the watch of a worker


def watch(world: World, now: datetime, **changes: Any) -> tuple[QualityWatch, CollectorRegistry]:
    registry = CollectorRegistry()
    settings = config(world, **changes)
    return QualityWatch(settings, lambda: open_database(world.uri), registry, lambda: now), registry


def test_one_worker_compares_and_another_takes_over(world: World, store: Database) -> None:
    batches = scored(np.random.default_rng(3), 10)
    keep(store, batches)
    truth(world, [(key, 1, batches[-1][0]) for key in KEYS])
    first, _ = watch(world, batches[-1][0])
    second, _ = watch(world, batches[-1][0])
    for each in (first, second):
        each.look()
    assert first.status is not None
    assert first.status.labels > MIN_LABELS
    assert second.status is None
    first.close()
    second.look()
    assert second.status == first.status
    second.close()


def test_a_table_that_cannot_be_read_is_told_beside_the_last_comparison(
    world: World, store: Database
) -> None:
    batches = scored(np.random.default_rng(4), 10)
    keep(store, batches)
    one, registry = watch(world, batches[-1][0])
    one.look()
    assert one.status is not None
    assert one.status.message is not None
    assert one.status.message.startswith("not measured: ")
    assert "truth.parquet" in one.status.message
    assert registry.get_sample_value("fourways_quality_failures_total") == 1
    truth(world, [(key, at % 2, batches[-1][0]) for at, key in enumerate(KEYS)])
    one.look()
    good = one.status
    assert good.message is None
    assert {each.name for each in good.metrics} == set(METRICS)
    world.file("truth.parquet").unlink()
    one.look()
    assert one.status.metrics == good.metrics
    assert one.status.message is not None
    one.close()


def test_too_many_labels_are_told(
    world: World, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_watch, "MAX_LABELS", 10)
    batches = scored(np.random.default_rng(5), 3)
    keep(store, batches)
    truth(world, [(key, 1, batches[-1][0]) for key in KEYS[:11]])
    one, _ = watch(world, batches[-1][0])
    one.look()
    assert one.status is not None
    assert "more than 10 labels since 2026-03-01T12:" in (one.status.message or "")
    one.close()


# ---------------------------------------------------------------- labels from a topic


def test_labels_of_a_topic_are_those_of_the_same_table(
    world: World, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(6)
    batches = scored(random, 20)
    keep(store, batches)
    now = batches[-1][0] + timedelta(minutes=1)
    labels = [(key, at % 2, now - timedelta(minutes=at)) for at, key in enumerate(KEYS * 3)]
    events = [
        TopicEvent(None, orjson.dumps({"id": key, "happened": label, "at": at.isoformat()}))
        for key, label, at in labels
    ]
    # Truth values, and keys of the broker.
    for at, (key, label, moment) in enumerate(labels[:10]):
        document = {"happened": bool(label), "at": moment.isoformat(), "more": [1]}
        events[at] = TopicEvent(key.encode(), orjson.dumps(document))
    bad = [TopicEvent(b"c1", b"{"), TopicEvent(b"c1", None), TopicEvent(b"c1", b'{"happened": 1}')]
    asked: list[tuple[str, float]] = []

    def read(config: Any, topic: str, since: float) -> Iterator[list[TopicEvent]]:
        asked.append((topic, since))
        yield [*events[:50], *bad]
        yield []
        yield events[50:]

    monkeypatch.setattr(truth_topic, "read_topic", read)
    source = {"kafka": {"bootstrapServers": "k:9092", "topic": "t"}}
    plain = config(world).to_json()
    plain["quality"] = {**plain["quality"], "topic": "labels"}
    del plain["quality"]["truth"], plain["batch"]
    stream = StreamConfig.model_validate({**plain, "streaming": {"source": source}})
    assert stream.quality is not None
    found = measure_window(stream, stream.quality, store, "churn", now)
    assert told(found) == pytest.approx(
        offline(labels, batches, now - timedelta(hours=24)), rel=1e-5
    )
    assert found.message == "3 rows of quality.topic were left out, the first: row 50: event"
    ((topic, since),) = asked
    assert topic == "labels"
    assert since == batches[0][0].timestamp() - 3600
