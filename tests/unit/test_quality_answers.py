"""What a model server answered is stored and compared, and no request waits or fails for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import QualityStatus
from fourways_api.runtime_config import ServerConfig
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store import open_database
from fourways_runtime.io.store.database import Database
from fourways_runtime.io.store.past import past_batches
from fourways_runtime.v2.parts import ScoredPart
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.workloads.quality_watch import measure_window
from fourways_runtime.workloads.serving import recording
from fourways_runtime.workloads.serving.recording import ROOM, SLICE_SECONDS, AnswerRecorder
from tests.kit.batch_world import World
from tests.kit.late_labels import Label, Predicted, offline, truth
from tests.kit.serving_plane import Serving, configure, serving, tensor
from tools.kit.models import LINEAR, linear

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUALITY = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "score",
    "metrics": ["AUC", "MAE", "LogLoss", "Calibration"],
    "window": "24h",
}
FLOATS = {**LINEAR, "inputs": [{**field, "type": "float32"} for field in LINEAR["inputs"]]}


class Clock:
    """A server's clock, in seconds since the start of the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def moment(self) -> datetime:
        return START + timedelta(seconds=self.now)


class Servers:
    """A store, and the recorders of model servers that write to it."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.clock = Clock()
        self.down = False
        patch.setattr(recording, "store_time", lambda data: START.timestamp() + self.clock.now)

    def config(self, schema: dict[str, Any] = LINEAR, **quality: Any) -> ServerConfig:
        declared = {**QUALITY, **quality}
        stored = {"output": declared["output"], "share": declared.get("share", "100%")}
        told = {"namespace": "n", "quality": declared, "stored": stored}
        return configure(self.world.root, linear(), schema, **told)

    def recorder(self, **quality: Any) -> tuple[AnswerRecorder, CollectorRegistry]:
        registry = CollectorRegistry()
        config = self.config(**quality)
        return AnswerRecorder(config, self.open, registry, self.clock), registry

    def open(self) -> Database:
        if self.down:
            raise StoreUnavailable("the prediction store is down")
        return open_database(self.world.uri)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")


@pytest.fixture
def servers(world: World, monkeypatch: pytest.MonkeyPatch) -> Servers:
    return Servers(world, monkeypatch)


@pytest.fixture
def store(world: World) -> Iterator[Database]:
    with closing(open_database(world.uri)) as database:
        yield database


def kept(
    store: Database, name: str = "score"
) -> list[tuple[datetime, list[Any], list[Any] | None]]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    found = past_batches(store, "n", "churn", name, epoch)
    return [(epoch + timedelta(microseconds=e.at), e.keys, e.values) for e in found]


def answer(recorder: AnswerRecorder, keys: list[str] | None, values: list[float]) -> None:
    rows = len(values)
    asked = InferenceRequest(rows, None, None, False, keys, None, {})
    recorder.note(asked, ScoredPart({"score": np.array(values, np.float32)}, 0, rows, {}))


def count(registry: CollectorRegistry, what: str = "") -> float | None:
    return registry.get_sample_value(f"fourways_quality_answers{what}_total")


# ---------------------------------------------------------------- what is kept of a request


@pytest.mark.parametrize("schema", [LINEAR, FLOATS], ids=["mixed", "floats"])
async def test_an_answer_is_kept_under_the_key_of_its_record(
    servers: Servers, store: Database, schema: dict[str, Any]
) -> None:
    registry = CollectorRegistry()
    config = servers.config(schema)
    recorder = AnswerRecorder(config, servers.open, registry, servers.clock)
    kind = "INT32" if schema is LINEAR else "FP32"

    def records(ages: list[float]) -> list[dict[str, Any]]:
        ones = [1.0] * len(ages)
        return [
            tensor("age", kind, ages),
            tensor("spend", "FP32", ones),
            tensor("rate", "FP32", ones),
        ]

    async def asked(server: Serving, ages: list[float], **more: Any) -> None:
        response = await server.infer(*records(ages), *more.pop("keys", ()), **more)
        assert response.status_code == 200, response.text
        servers.clock.now += 1

    async with serving(config, recorder=recorder) as server:
        await asked(server, [1, 2], keys=[tensor("id", "BYTES", ["a", "b"])])
        await asked(server, [3], parameters={"entity_keys": ["c"]})
        await asked(server, [4], id="request-4")
        await asked(server, [5], id="request-5", parameters={"entity_keys": ["d"]})
        await asked(
            server, [6, 999, 7], parameters={"entity_keys": ["e", "bad", "f"], "partial": True}
        )
        for _ in range(3):  # the second of them is taken by a template
            await asked(server, [8])
        await asked(server, [9, 10], id="of two rows")
    recorder.flush()
    found = [(keys, values) for _, keys, values in kept(store)]
    score = lambda age: age * 0.5 - 2.0 + 0.125  # noqa: E731
    assert found == [
        (["a", "b"], [score(1), score(2)]),
        (["c"], [score(3)]),
        (["request-4"], [score(4)]),
        (["d"], [score(5)]),
        (["e", "f"], [score(6), score(7)]),
    ]
    assert [at for at, _, _ in kept(store)] == [START + timedelta(seconds=s) for s in range(5)]
    assert (count(registry), count(registry, "_without_key")) == (7.0, 5.0)


async def test_a_fault_of_the_recorder_fails_no_request(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, registry = servers.recorder()
    monkeypatch.setattr(recorder, "_keys_of", lambda inference: 1 // 0)
    async with serving(servers.config(), recorder=recorder) as server:
        ones = [tensor("spend", "FP32", [1]), tensor("rate", "FP32", [1])]
        response = await server.infer(tensor("age", "INT32", [1]), *ones, id="a")
    assert response.json()["outputs"][0]["data"] == [-1.375]
    assert count(registry, "_dropped") == 1.0


def test_answers_wait_for_a_store_that_is_down_and_some_find_no_room(
    servers: Servers, store: Database
) -> None:
    recorder, registry = servers.recorder()
    servers.down = True
    answer(recorder, ["a"], [0.5])
    servers.clock.now = 60
    with pytest.raises(StoreUnavailable):
        recorder.flush()
    many = [f"k{at}" for at in range(ROOM)]
    answer(recorder, many, [0.25] * ROOM)
    answer(recorder, many[1:], [0.75] * (ROOM - 1))
    assert count(registry, "_dropped") == ROOM
    servers.down = False
    servers.clock.now = 90
    recorder.flush()
    first, second = kept(store)
    assert first == (START, ["a"], [0.5])
    assert (second[0], second[1]) == (START + timedelta(seconds=60), many[1:])
    answer(recorder, many, [0.25] * ROOM)
    recorder.flush()
    assert count(registry) == 2 * ROOM


def test_a_share_of_the_keys_is_kept_whole(servers: Servers, store: Database) -> None:
    recorder, registry = servers.recorder(share="10%")
    names = [f"k{at}" for at in range(1000)]
    for at in range(2):
        servers.clock.now = at
        answer(recorder, names, [float(at)] * 1000)
    recorder.flush()
    (_, first, _), (_, second, _) = kept(store, "score 0.1")
    assert first == second
    assert 70 < len(first) < 130
    assert count(registry) == 2 * len(first)
    for _ in range(60):  # what is left out takes no room
        answer(recorder, names, [1.0] * 1000)
        recorder.flush()
    assert count(registry, "_dropped") == 0


async def test_the_end_of_a_server_writes_what_waits(servers: Servers, store: Database) -> None:
    recorder, _ = servers.recorder()
    recorder.start()
    answer(recorder, ["a"], [0.5])
    await recorder.close()
    assert kept(store) == [(START, ["a"], [0.5])]


# ---------------------------------------------------------------- equal to an offline count


def traffic(
    random: np.random.Generator, servers: Servers, *recorders: AnswerRecorder
) -> list[Predicted]:
    """Ask servers at random, some keys at once at several; return what they answered, and when."""
    made: list[Predicted] = []
    for second in range(300):
        for _ in range(int(random.integers(0, 4))):
            servers.clock.now = second + float(random.uniform(0, 0.9))
            if made and servers.clock.moment() <= made[-1][0]:
                continue
            keys = random.choice([f"c{at}" for at in range(40)], 3, replace=False).tolist()
            values = random.uniform(0, 1, 3).astype(np.float32).tolist()
            answer(recorders[int(random.integers(len(recorders)))], keys, values)
            made.append((servers.clock.moment(), dict(zip(keys, values, strict=True))))
        if second % 7 == 0:
            for recorder in recorders:
                recorder.flush()
    for recorder in recorders:
        recorder.flush()
    return made


@pytest.mark.parametrize("seed", range(3))
def test_quality_of_several_servers_is_that_of_an_offline_count(
    servers: Servers, store: Database, seed: int
) -> None:
    """Late, doubled, corrected and unordered labels, while keys are asked about again."""
    random = np.random.default_rng(seed)
    recorders = [servers.recorder()[0] for _ in range(3)]
    made = traffic(random, servers, *recorders)
    labels: list[Label] = []
    end = START + timedelta(seconds=600)
    for _ in range(4):
        fresh: list[Label] = [
            (f"c{random.integers(60)}", int(random.integers(2)),
             START + timedelta(seconds=int(random.integers(0, 400)), milliseconds=950))
            for _ in range(150)
        ]  # fmt: skip
        doubled = [labels[at] for at in random.integers(0, len(labels), 20)] if labels else []
        corrected = [(k, 1 - v, t + timedelta(milliseconds=1)) for k, v, t in fresh[::7]]
        labels += [*fresh, *doubled, *corrected]
        order = sorted(range(len(labels)), key=lambda at: (labels[at][2], at))
        mixed = [labels[at] for at in random.permutation(order)]
        # Of equal times the last row counts, whatever else is in between.
        truth(servers.world, mixed)
        found = measured(servers, store, end)
        wanted = offline(mixed, made, START)
        assert told(found) == pytest.approx(wanted, rel=1e-5)


def measured(servers: Servers, store: Database, now: datetime) -> QualityStatus:
    config = servers.config()
    assert config.quality is not None
    return measure_window(config, config.quality, store, "churn", now)


def told(status: QualityStatus) -> dict[str, float]:
    return {"labels": status.labels, **{each.name: each.value for each in status.metrics}}


def test_a_write_whose_outcome_is_unknown_counts_once(
    servers: Servers, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, _ = servers.recorder()
    write, outcomes = recording.write_chunks, iter([StoreUnavailable("gone"), None])

    def unsure(*arguments: Any) -> None:
        write(*arguments)
        if error := next(outcomes):
            raise error

    monkeypatch.setattr(recording, "write_chunks", unsure)
    keys = [f"c{at}" for at in range(40)]
    answer(recorder, keys, [at / 40 for at in range(40)])
    with pytest.raises(StoreUnavailable):
        recorder.flush()
    servers.clock.now = 5
    recorder.flush()
    assert len(kept(store)) == 2
    truth(
        servers.world,
        [
            (key, at % 2, START + timedelta(seconds=s))
            for s in (1, 9)
            for at, key in enumerate(keys)
        ],
    )
    made: list[Predicted] = [(START, {key: at / 40 for at, key in enumerate(keys)})]
    labels = [(key, at % 2, START + timedelta(seconds=9)) for at, key in enumerate(keys)]
    found = told(measured(servers, store, START + timedelta(seconds=60)))
    assert found == pytest.approx(offline(labels, made, START), rel=1e-5)
    assert found["labels"] == 40


def test_of_one_key_asked_twice_in_a_moment_both_answers_are_kept(
    servers: Servers, store: Database
) -> None:
    recorder, _ = servers.recorder()
    step = SLICE_SECONDS / 4
    for at, keys in enumerate((["a"], ["b"], ["a"], ["c"], ["d"], ["e"], ["f"], ["g"])):
        servers.clock.now = at * step
        answer(recorder, keys, [float(at)])
    recorder.flush()
    assert [keys for _, keys, _ in kept(store)] == [["a", "b"], ["a", "c", "d", "e"], ["f", "g"]]


def test_predictions_of_another_output_are_left_alone(servers: Servers, store: Database) -> None:
    """While a new spec rolls out, servers of both write: neither spoils the other's window."""
    old, _ = servers.recorder()
    new, _ = servers.recorder(share="50%")
    keys = [f"c{at}" for at in range(100)]
    for recorder in (old, new):
        answer(recorder, keys, [0.5] * 100)
        recorder.flush()
    truth(servers.world, [(key, 1, START + timedelta(seconds=1)) for key in keys])
    found = measured(servers, store, START + timedelta(seconds=9))
    assert found.labels == 100
    ((_, half, _),) = kept(store, "score 0.5")
    assert 20 < len(half) < 80


def test_nothing_is_kept_without_rows(servers: Servers, store: Database) -> None:
    recorder, registry = servers.recorder()
    none = ScoredPart({"score": np.empty(0, np.float32)}, 0, 0, {})
    recorder.note(InferenceRequest(0, None, None, False, [], None, {}), none)
    recorder.flush()
    assert (kept(store), count(registry)) == ([], 0.0)
