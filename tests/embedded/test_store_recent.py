"""The last answers of a deployment, as either store has them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fourways_runtime.io.store import RunStore, open_database, open_run_store
from fourways_runtime.io.store.past import packed, write_chunks
from fourways_runtime.io.store.recent import MAX_OUTPUTS, RecentAnswers, recorded
from fourways_runtime.io.store.streams.stream import DeadLetter, Move
from tests.kit.stores import OpenStream, a_run, commit, contract, predictions, publish
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def last(uri: str, namespace: str, name: str, mode: str | None, limit: int = 3) -> RecentAnswers:
    with closing(open_run_store(uri, read_only=True)) as runs:
        return runs.recent_answers(namespace, name, mode, limit)


def told(found: RecentAnswers) -> list[tuple[Any, dict[str, Any]]]:
    return [(each.key, each.outputs) for each in found.answers]


def test_of_a_run_some_predictions_are_shown(writer: RunStore, uri: str, namespace: str) -> None:
    assert last(uri, namespace, "churn", None).answers == []
    outputs = contract(
        {"name": "y", "type": "float64"},
        {"name": "big", "type": "uint64"},
        {"name": "ok", "type": "bool"},
        {"name": "grid", "type": "float32", "shape": [2]},
        {"name": "word", "type": "string"},
    )
    columns = {
        "y": [0.5, 1.5],
        "big": np.array([2**64 - 1, 1], np.uint64),
        "ok": [True, False],
        "grid": np.zeros((2, 2), np.float32),
        "word": np.array(["é", ""], object),
    }
    run = publish(writer, a_run(namespace, spec=outputs), predictions([1, 2], **columns))
    found = last(uri, namespace, "churn", None)
    assert found.run == run.name
    assert {each.at for each in found.answers} == {run.computed_at}
    assert sorted(told(found)) == [
        (1, {"y": 0.5, "big": 2**64 - 1, "ok": True, "word": "é"}),
        (2, {"y": 1.5, "big": 1, "ok": False, "word": ""}),
    ]
    assert len(last(uri, namespace, "churn", None, 1).answers) == 1


def test_of_a_stream_the_newest_predictions_are_shown(
    open_stream: OpenStream, uri: str, namespace: str
) -> None:
    many = [{"name": f"o{at}", "type": "float64"} for at in range(MAX_OUTPUTS + 4)]
    writer = open_stream(contract(*many))
    writer.begin({0: 0})
    for start in (0, 10, 20):
        columns = {each["name"]: [float(start)] * 10 for each in many}
        made = predictions([1, *range(start + 2, start + 11)], start, **columns)
        commit(writer, [Move(0, start, start + 10)], made)
    found = last(uri, namespace, "anomaly", "streaming", 12)
    assert [outputs["o0"] for _, outputs in told(found)] == [20.0] * 10 + [10.0] * 2
    assert all(len(outputs) == MAX_OUTPUTS for _, outputs in told(found))
    assert [key for key, _ in told(found)].count(1) == 1
    assert found.answers[0].at > found.answers[-1].at


def test_the_newest_dead_letters_of_a_stream_are_shown(
    open_stream: OpenStream, uri: str, namespace: str
) -> None:
    def letters(limit: int) -> list[tuple[int, int, str | None, int, str]]:
        with closing(open_run_store(uri, read_only=True)) as runs:
            found = runs.dead_letters(namespace, "anomaly", limit) or []
        return [(f.partition, f.position, f.key, f.attempts, f.reason) for f in found]

    assert letters(3) == []
    writer = open_stream(contract({"name": "y", "type": "float64"}))
    writer.begin({0: 0})
    dead = [
        DeadLetter(0, 1, b"caf\xc3\xa9 \xff", b"{}", (), 3, "model: NaN"),
        DeadLetter(0, 2, None, None, (("n", b"1"),), 1, "x: missing"),
    ]
    commit(writer, [Move(0, 0, 3)], predictions([], 0, y=[]), dead)
    assert sorted(letters(3)) == [
        (0, 1, "café \ufffd", 3, "model: NaN"),
        (0, 2, None, 1, "x: missing"),
    ]
    assert len(letters(1)) == 1


def test_of_model_servers_what_is_compared_is_shown(uri: str, namespace: str) -> None:
    with closing(open_database(uri)) as store:
        chunks = [
            (NOW + timedelta(seconds=at), packed([f"k{at}", "same"], np.array([at, at + 0.5])))
            for at in range(3)
        ]
        write_chunks(store, namespace, "churn", "score 0.5", chunks)
        words = packed(["z"], np.array(["yes"], object))
        write_chunks(store, namespace, "churn", "label text", [(NOW + timedelta(hours=1), words)])
        assert told(recorded(store, namespace, "churn", 1)) == [("z", {"label": "yes"})]
    assert told(last(uri, namespace, "churn", "realtime", 4)) == [
        ("z", {"label": "yes"}),
        ("same", {"score": 2.5}),
        ("k2", {"score": 2.0}),
        ("same", {"score": 1.5}),
    ]
    assert last(uri, namespace, "churn", "streaming").answers == []


def test_a_search_that_takes_too_long_is_given_up(postgres: Server) -> None:
    with closing(open_database(postgres.uri())) as store:
        assert store.rows_within(0.05, "SELECT pg_sleep(30)") is None
        assert store.rows_within(5, "SELECT 1") == [(1,)]
