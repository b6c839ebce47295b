"""Labels that come late: which prediction they belong to, and metrics equal to an offline count."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import QualityStatus, check, parse
from fourways_api.problems import InvalidSpec
from fourways_operator.metrics import Metrics
from fourways_operator.status import status_of
from fourways_operator.work_queue import Key
from fourways_runtime.io.store import open_run_store
from fourways_runtime.io.store.runs import publish
from fourways_runtime.scoring.quality import by_run, measure
from fourways_runtime.workloads import batch
from fourways_runtime.workloads.batch import quality as late_truth
from fourways_runtime.workloads.truth import MIN_LABELS
from tests.kit import offline_metrics, status_facts
from tests.kit.batch_world import World
from tests.kit.lazy import LazyModule

sklearn_metrics = LazyModule("sklearn.metrics")

DAY = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 200

# ---------------------------------------------------------------- formulas


def samples(kind: str, seed: int) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    rows = int(random.integers(30, 500))
    labels = random.integers(0, 2, rows).astype(np.float64)
    predictions = np.clip(labels * 0.3 + random.uniform(0, 0.7, rows), 0, 1)
    if kind == "ties":
        predictions = predictions.round(1)
    if kind == "certain":
        predictions = predictions.round(0)
    return predictions, labels


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["plain", "ties", "certain"])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(kind: str, seed: int) -> None:
    predictions, labels = samples(kind, seed)
    names = ("AUC", "LogLoss", "Accuracy", "MAE", "RMSE")
    found = measure(names, predictions, labels)
    expected = {
        "AUC": sklearn_metrics.roc_auc_score(labels, predictions),
        "LogLoss": sklearn_metrics.log_loss(labels, predictions),
        "Accuracy": sklearn_metrics.accuracy_score(labels, predictions >= 0.5),
        "MAE": sklearn_metrics.mean_absolute_error(labels, predictions),
        "RMSE": sklearn_metrics.root_mean_squared_error(labels, predictions),
    }
    assert found == pytest.approx(expected, rel=1e-9)
    by_hand = {
        "AUC": offline_metrics.auc(labels, predictions),
        "LogLoss": offline_metrics.log_loss(labels, predictions),
        "MAE": offline_metrics.mae(labels, predictions),
    }
    assert {**expected, **by_hand} == pytest.approx(expected, rel=1e-9)


def test_calibration_is_the_weighted_distance_of_bins() -> None:
    predictions, labels = samples("plain", 9)
    expected = 0.0
    for low in range(10):
        own = (predictions >= low / 10) & ((predictions < (low + 1) / 10) | (low == 9))
        if own.any():
            expected += abs(predictions[own].mean() - labels[own].mean()) * own.mean()
    assert measure(["Calibration"], predictions, labels)["Calibration"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "labels", "metrics"),
    [
        ([0.2, 0.9], [1, 1], ["AUC"]),
        ([0.2, 1.9], [0, 1], ["LogLoss", "Calibration"]),
        ([0.2, 0.9], [0, 3], ["AUC", "LogLoss", "Calibration"]),
        ([], [], ["AUC", "MAE", "Accuracy"]),
    ],
)
def test_what_is_not_defined_is_left_out(predictions: Any, labels: Any, metrics: Any) -> None:
    found = measure(metrics, np.array(predictions, float), np.array(labels, float))
    assert found == {}


def test_texts_have_an_accuracy() -> None:
    labels, predictions = np.array(["a", "b"], object), np.array(["a", "c"], object)
    assert measure(["Accuracy"], predictions, labels) == {"Accuracy": 0.5}


def test_of_several_labels_for_a_key_the_latest_counts_in_the_run_of_its_time() -> None:
    published = np.array([100, 200])
    keys = np.array(["a", "a", "b", "a", "a", "c"], object)
    times = np.array([250, 150, 99, 120, 150, 200])
    first, second = by_run(published, keys, times)
    assert first.tolist() == [4]  # 150 twice: the later row
    assert second.tolist() == [0, 5]  # b came before any run


# ---------------------------------------------------------------- runs in the store

SETTINGS = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "y",
    "metrics": ["AUC", "MAE", "LogLoss", "Calibration"],
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Publish each run a day after the one before."""
    now = [DAY]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now[0]

    monkeypatch.setattr(publish, "datetime", Clock)
    return now


def ran(world: World, name: str, clock: list[datetime], shift: float, **quality: Any) -> Any:
    """Run with predictions of their own, y = 2 * (age + spend), all between 0 and 1."""
    random = np.random.default_rng(int(shift * 10))
    spend = (random.uniform(0, 0.5, ROWS)).astype(np.float32)
    world.table(id=[f"c{at}" for at in range(ROWS)], age=[0] * ROWS, spend=spend)
    run = batch.BatchRun(world.config(quality={**SETTINGS, **quality}, batch__keepRuns=5), name)
    run.execute()
    clock[0] += timedelta(days=1)
    return run, dict(zip([f"c{at}" for at in range(ROWS)], 2 * spend, strict=True))


def truth(world: World, rows: list[tuple[str, Any, datetime]], kind: Any = None) -> None:
    keys, labels, times = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {"id": pa.array(keys, pa.string()), "happened": pa.array(labels, kind or pa.int64()),
         "at": pa.array(times, pa.timestamp("us", tz="UTC"))}
    )  # fmt: skip
    pq.write_table(table, world.file("truth.parquet"))


def offline(
    rows: list[tuple[str, Any, datetime]], runs: dict[str, tuple[datetime, dict[str, float]]]
) -> dict[str, dict[str, Any]]:
    """Count by the rules in plain Python."""
    chosen: dict[str, dict[str, tuple[datetime, Any]]] = {name: {} for name in runs}
    for key, label, at in rows:
        served = [name for name, (published, _) in runs.items() if published <= at]
        if not served:
            continue
        run = max(served, key=lambda name: runs[name][0])
        known = chosen[run].get(key)
        if known is None or known[0] <= at:
            chosen[run][key] = (at, label)
    found = {}
    for name, (_, predictions) in runs.items():
        pairs = [
            (predictions[k], label) for k, (_, label) in chosen[name].items() if k in predictions
        ]
        if len(pairs) < MIN_LABELS:
            continue
        told, happened = (np.array(side, float) for side in zip(*pairs, strict=True))
        found[name] = {
            "labels": len(pairs),
            "AUC": offline_metrics.auc(happened, told),
            "MAE": offline_metrics.mae(happened, told),
            "LogLoss": offline_metrics.log_loss(happened, told),
        }
    return found


def labels_of(
    random: np.random.Generator, days: list[datetime], share: float
) -> list[tuple[str, Any, datetime]]:
    return [
        (f"c{at}", int(random.integers(0, 2)), day + timedelta(hours=1))
        for day in days
        for at in np.flatnonzero(random.random(ROWS) < share)
    ]


def stored(world: World) -> dict[str, dict[str, Any]]:
    with closing(open_run_store(world.uri, read_only=True)) as store:
        found = {}
        for run in store.runs("n", "churn"):
            if run.quality is not None:
                told = QualityStatus.model_validate(run.quality)
                values = {each.name: each.value for each in told.metrics}
                values.pop("Calibration")
                found[run.name] = {"labels": told.labels, **values}
        return found


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(at, marks=pytest.mark.thorough) for at in (1, 2))]
)
def test_quality_is_that_of_an_offline_count_whatever_order_labels_come_in(
    world: World, clock: list[datetime], seed: int
) -> None:
    """Late, doubled, corrected, unordered and unknown labels, over four runs."""
    random = np.random.default_rng(seed)
    known: list[tuple[str, Any, datetime]] = [("c1", 1, DAY - timedelta(days=1))]
    runs: dict[str, tuple[datetime, dict[str, float]]] = {}
    truth(world, known)
    for number in range(4):
        # What is known when a run ends: labels of all days so far, some only days later.
        published = clock[0]
        run, predictions = ran(world, f"r{number}", clock, shift=number)
        assert stored(world) == {
            name: pytest.approx(values, rel=1e-5) for name, values in offline(known, runs).items()
        }
        runs[f"r{number}"] = (published, predictions)
        fresh = labels_of(random, [at for at, _ in runs.values()], 0.4)
        doubled = [known[at] for at in random.integers(0, len(known), 20)]
        corrected = [(k, 1 - v, t + timedelta(minutes=5)) for k, v, t in fresh[::7]]
        unknown = [("nobody", 1, published + timedelta(hours=1))]
        known = [*known, *fresh, *doubled, *corrected, *unknown]
        random.shuffle(known)
        truth(world, known)
    assert run.progress.quality is not None
    assert run.progress.quality.run == "r2"
    assert batch.succeeded(run.execute(), (), None, run.progress.quality).quality is not None


def test_truth_values_and_texts_of_csv_are_labels(world: World, clock: list[datetime]) -> None:
    truth(world, [], pa.bool_())
    _, predictions = ran(world, "r0", clock, 0)
    rows = [(key, value > 0.5, DAY + timedelta(hours=1)) for key, value in predictions.items()]
    truth(world, rows, pa.bool_())
    ran(world, "r1", clock, 1)
    assert stored(world)["r0"]["AUC"] == 1.0
    lines = [f"{key},{int(label)},{at.isoformat()}" for key, label, at in rows]
    world.file("truth.csv").write_text("\n".join(["id,happened,at", *lines, "c9,x,2026-03-01"]))
    run, _ = ran(world, "r2", clock, 2, truth={"uri": "pvc://data/truth.csv", "format": "CSV"})
    assert stored(world)["r0"]["AUC"] == 1.0
    assert "1 rows of quality.truth were left out, the first: row 200: happened" in run.notes


def test_a_table_that_cannot_be_read_keeps_no_run_from_being_published(
    world: World, clock: list[datetime]
) -> None:
    run, _ = ran(world, "r0", clock, 0)  # no run yet, so no label is asked for
    assert run.notes == []
    run, _ = ran(world, "r1", clock, 1)
    assert run.notes[0].startswith("the quality was not measured: ")
    assert "truth.parquet" in run.notes[0]
    assert stored(world) == {}


def test_too_many_labels_are_told(
    world: World, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_truth, "MAX_TRUTH_ROWS", 10)
    truth(world, [(f"c{at}", 1, DAY + timedelta(hours=1)) for at in range(11)])
    ran(world, "r0", clock, 0)
    run, _ = ran(world, "r1", clock, 1)
    assert "more than 10 labels since the oldest run" in run.notes[0]


# ---------------------------------------------------------------- the spec and the status

SPEC = {**SETTINGS, "output": "score"}
TOPIC = {**{name: value for name, value in SPEC.items() if name != "truth"}, "topic": "labels"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"output": "nothing"}, "no output of the contract"),
        ({"metrics": ["AUC", "AUC"]}, "listed twice"),
        ({"time": "happened"}, "name one column"),
        ({"label": "id"}, "is the entity key"),
    ],
)
def test_a_spec_that_cannot_be_measured_is_refused(changes: dict[str, Any], told: str) -> None:
    document = status_facts.deployment(quality={**SPEC, **changes})
    if not told:
        check(parse(document))
        return
    with pytest.raises(InvalidSpec, match=told):
        check(parse(document))


def test_only_predictions_in_the_store_are_measured() -> None:
    for changes, told in (
        ({"mode": "realtime", "realtime": {"runtime": {"modelFormat": "onnx"}}},
         "a runtime of KServe fetches the model itself: its predictions are not compared"),
        ({"mode": "realtime", "realtime": {"minReplicas": 1}, "quality": TOPIC},
         "only streams read labels from a topic"),
        ({"quality": {**SPEC, "topic": "labels"}}, "either from a table or from a topic"),
        ({"quality": TOPIC}, "only streams read labels from a topic"),
        ({"quality": {**SPEC, "window": "59s"}}, "shorter than 1m"),
        ({"quality": {**SPEC, "share": "0.0%"}}, "no key is compared"),
        ({"quality": {**SPEC, "interval": "25h"}}, "longer than 24h"),
        ({"batch": {"schedule": "0 3 * * *", "source": {"uri": "pvc://t/r.parquet"},
                    "sink": {"files": {"uri": "s3://b/c"}}}}, "in a sink"),
    ):  # fmt: skip
        with pytest.raises(InvalidSpec, match=told):
            check(parse(status_facts.deployment(**{"quality": SPEC, **changes})))


def test_the_status_and_the_gauges_have_the_latest_quality() -> None:
    measured = {
        "run": "m-0",
        "output": "score",
        "labels": 120,
        "metrics": [{"name": "AUC", "value": 0.81}],
        "measuredAt": "2026-03-01T03:00:00Z",
    }
    document = status_facts.deployment(quality=SPEC)
    done = status_facts.job("m-1", "2026-03-01T03:00:00Z", "Complete")
    report: dict[str, Any] = {"outcome": "Succeeded", "rows": 1, "version": "2"}
    worker = status_facts.pod("m-1", status_facts.ended(0, **report, quality=measured))
    facts = status_facts.facts((done, worker), raw=document)
    status = status_of(facts, (), parse(document))
    assert status["quality"] == measured
    later = status_facts.facts(raw={**document, "status": status})
    assert status_of(later, (), parse(document))["quality"] == measured
    metrics, key = Metrics(), Key("demo", "m")
    labels = {"namespace": "demo", "name": "m"}
    metrics.seen(key, status)
    value = metrics.registry.get_sample_value
    assert value("fourways_deployment_quality", {**labels, "metric": "AUC"}) == 0.81
    assert value("fourways_deployment_labels", labels) == 120
    metrics.seen(key, None)
    assert value("fourways_deployment_quality", {**labels, "metric": "AUC"}) is None
    assert value("fourways_deployment_labels", labels) is None
