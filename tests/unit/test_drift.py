"""Drift: what has changed is found, and what is only chance gives no alarm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_api.training_profile import InvalidProfile, read_profile
from fourways_runtime.scoring.drift import chi_squared, compare, divergence, summarised
from fourways_runtime.scoring.profile import (
    ProfileCounts,
    RecordProfiler,
    make_profile,
    sample_of,
    taken,
)
from tests.kit.drift_tables import CONTRACT, DRIFTS, Table, outputs_of, profiler, table

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def drifted(known: RecordProfiler, columns: Table, max_drift: float = 0.2) -> list[str]:
    counts = known.count(columns, outputs_of(columns))
    return [each.name for each in compare(known, counts, max_drift) if each.drifted]


@pytest.mark.parametrize("rows", [500, 5_000])
@pytest.mark.parametrize("name", DRIFTS)
def test_a_seeded_drift_is_found_in_its_field_alone(name: str, rows: int) -> None:
    field, change = DRIFTS[name]
    random = np.random.default_rng(17)
    columns = table(random, rows)
    change(columns, random)
    assert drifted(profiler(), columns) == [field]


@pytest.mark.parametrize(
    "seed", [*range(9), *(pytest.param(at, marks=pytest.mark.thorough) for at in range(9, 50))]
)
def test_a_quiet_series_gives_no_alarm(seed: int) -> None:
    """Twenty windows of every size, with profiles of few and of many records."""
    random = np.random.default_rng(1_000 + seed)
    known = profiler(seed, rows=[150, 1_000, 20_000][seed % 3])
    for rows in np.geomspace(10, 4_000, 20).astype(int).tolist():
        assert drifted(known, table(random, rows), max_drift=0.1) == []


def test_a_difference_that_few_records_show_by_chance_is_no_drift() -> None:
    known, random = profiler(), np.random.default_rng(3)
    columns = table(random, 60)
    found = {d.name: d for d in compare(known, known.count(columns, outputs_of(columns)), 0.01)}
    assert found["alcohol"].psi > 0.01
    assert not any(each.drifted for each in found.values())


def test_counts_of_a_sample_with_weights_judge_as_its_records_do() -> None:
    """A tenth of the records, each for ten, tells no more than that tenth."""
    known, columns = profiler(), table(np.random.default_rng(5), 100_000)
    which = sample_of(100_000, 1_000)
    some = taken(columns, which)
    weighed = known.count(some, outputs_of(some), weight=100)
    plain = known.count(some, outputs_of(some))
    assert weighed.records == 100_000
    assert weighed.effective == pytest.approx(1_000)
    assert compare(known, weighed, 0.01) == compare(known, plain, 0.01)


def test_counts_that_are_added_are_those_of_all_records_and_survive_json() -> None:
    known, columns = profiler(), table(np.random.default_rng(6), 1_000)
    parts = ProfileCounts()
    for start in range(0, 1_000, 100):
        some = taken(columns, np.arange(start, start + 100))
        part = known.count(some, outputs_of(some), rejects=1)
        parts.add(ProfileCounts.from_json(part.to_json()))
    whole = known.count(columns, outputs_of(columns), rejects=10)
    assert parts.to_json() == whole.to_json()
    told = summarised(compare(known, parts, 0.2), parts, NOW)
    assert told is not None
    assert (told.records, told.drifted, len(told.fields)) == (1_000, 0, 5)
    assert told.rejects == pytest.approx(10 / 1_010, rel=0.01)


def test_nothing_is_said_of_no_records() -> None:
    known, counts = profiler(), ProfileCounts()
    assert summarised(compare(known, counts, 0.2), counts, NOW) is None


def test_the_index_is_that_of_the_formula() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    found = divergence(np.append(p * 1e6, 0), np.append(q * 1e6, 0), ordered=True)
    assert found.psi == pytest.approx(sum((q - p) * np.log(q / p)))
    assert found.ks == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("share", "degrees", "expected"), [(0.95, 10, 18.307), (0.999, 5, 20.515), (0.99999, 9, 39.34)]
)
def test_quantiles_are_those_of_tables(share: float, degrees: int, expected: float) -> None:
    assert chi_squared(share, degrees) == pytest.approx(expected, rel=0.02)


def test_a_value_that_float32_rounds_stays_in_its_bin() -> None:
    random = np.random.default_rng(9)
    numbers = random.normal(0, 1, 2_000).round(1)
    spec = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": "float64"}],
            "outputs": [{"name": "y", "type": "float64"}],
        }
    )
    known = RecordProfiler(make_profile(spec, {"x": numbers}, {"y": numbers}))
    counted = known.count({"x": numbers.astype(np.float32)}, {})
    assert counted.inputs["x"].tolist() == known.inputs[0].expected.tolist()


DOCUMENT: dict[str, Any] = make_profile(
    CONTRACT,
    {k: v for k, v in table(np.random.default_rng(0), 200).items() if k != "risk"},
    outputs_of(table(np.random.default_rng(0), 200)),
).model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(version=2), "version"),
        (lambda d: d["inputs"][0].update(name="age"), "no single value age"),
        (lambda d: d["inputs"][0].update(name="picture"), "no single value picture"),
        (lambda d: d["inputs"][0]["counts"].pop(), "counts were expected"),
        (lambda d: d["inputs"][0]["edges"].reverse(), "edges must grow"),
        (lambda d: d["inputs"][0]["counts"].__setitem__(0, -1), "greater than or equal to 0"),
        (lambda d: d["inputs"].append(d["inputs"][0]), "alcohol is listed twice"),
        (lambda d: d["inputs"][3].update(name="rooms"), "rooms is listed twice"),
        (lambda d: d["inputs"][3].update(name="rooms") or d["inputs"].pop(2), "is a number"),
        (lambda d: d["inputs"][0].update(labels=["a"]), "either edges or labels"),
        (lambda d: d.update(inputs=[], outputs=[]), "neither inputs nor outputs"),
        (lambda d: d.update(inputs=[d["inputs"][0]] * 300), "at most 256"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(change: Callable[[Any], Any], told: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    with pytest.raises(InvalidProfile, match=told):
        read_profile(json.dumps(document).encode(), CONTRACT)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b" " * (2**20 + 1), b"\xff\xfe"])
def test_what_is_no_profile_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidProfile):
        read_profile(content, CONTRACT)
