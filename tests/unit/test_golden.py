"""Golden vectors: what agrees within the tolerance, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fourways_api import Contract, GoldenVectors
from fourways_runtime.errors import GoldenMismatch
from fourways_runtime.model_watch import WATCH
from fourways_runtime.scoring import golden
from fourways_runtime.scoring.golden import check_vectors, compare, read_vectors
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit.models import Function

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "x", "type": "float32", "range": {"max": 100}},
            {"name": "s", "type": "string", "nullable": True},
        ],
        "outputs": [
            {"name": "y", "type": "float32"},
            {"name": "label", "type": "string", "tensor": "y", "categories": ["no", "yes"]},
        ],
    }
)
GOLDEN = GoldenVectors(uri="file:///g", absolute_tolerance=0.01, relative_tolerance=0.0)
MODEL = Function(
    (Tensor("x", "float32", (None,)), Tensor("s", "string", (None,))),
    (Tensor("y", "float32", (None,)),),
    lambda tensors: {"y": tensors["x"]},
)


def check(tmp_path: Path, *lines: Any) -> None:
    file = tmp_path / "golden.jsonl"
    raw = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    file.write_bytes(b"\n".join(raw) + b"\n\n")
    check_vectors(Pipeline(CONTRACT, MODEL), read_vectors(file, CONTRACT), GOLDEN)


def vector(x: Any, **outputs: Any) -> dict[str, Any]:
    return {"inputs": {"x": x, "s": None}, "outputs": outputs}


def test_answers_within_the_tolerance_agree(tmp_path: Path) -> None:
    check(tmp_path, vector(1, y=1.009, label="yes"), {"inputs": {"x": 0}, "outputs": {"y": 0}})


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([vector(1, y=1), vector(1, y=1.02)], "vector 1: y: expected 1.02, got 1, tolerance 0.01"),
        ([vector(0, label="yes")], "vector 0: label: expected yes, got no"),
        ([vector(0, y=1), vector(0, y=2)], "expected 1, got 0, tolerance 0.01; vector 1: y"),
        ([vector(1, y=9)] * 7, "and 2 more"),
        ([vector(101, y=1)], "vector 0 was refused: x: 101 is above 100"),
        ([vector("a", y=1)], "vector 0 was refused: x: 'a' is not a number"),
        ([vector(1, y=1), vector("a", y=1)], "vector 1 was refused: x: 'a' is not a number"),
        ([vector(1, z=1)], "line 1 of the golden file: the contract's outputs have no z"),
        ([{"inputs": {"q": 1}, "outputs": {"y": 1}}], "the contract's inputs have no q"),
        ([vector(1)], "line 1 of the golden file has no output"),
        ([vector(1, y=1), b"{"], "line 2 of the golden file is not JSON"),
        ([b'{"inputs": {}}'], 'is not {"inputs"'),
        ([b"[1]"], 'is not {"inputs"'),
        ([b" "], "contains no vectors"),
    ],
)
def test_what_differs_is_told_field_by_field(tmp_path: Path, lines: Any, told: str) -> None:
    with pytest.raises(GoldenMismatch) as error:
        check(tmp_path, *lines)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("expected", "got", "agrees"),
    [
        (100.0, 100.05, True),
        (100.0, 100.2, False),
        (1.0, float("nan"), False),
        (True, True, True),
        (True, 1, False),
        (1, 1, True),
        ([1.0, 2.0], np.array([1.0, 2.0]), True),
        ([1.0, 2.0], np.array([1.0, 9.0]), False),
        ([1.0], np.array([1.0, 2.0]), False),
        ("a", "a", True),
        ("a", "b", False),
    ],
)
def test_the_tolerance_is_absolute_plus_relative(expected: Any, got: Any, agrees: bool) -> None:
    golden = GoldenVectors(uri="file:///g", absolute_tolerance=0.001, relative_tolerance=0.001)
    assert (compare(expected, got, golden) is None) is agrees


def test_a_call_is_watched_by_the_place_of_its_vector(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    lines = [orjson.dumps(vector(x, y=x)) for x in (0, 1)]
    file.write_bytes(b"\n\n".join(lines))
    seen = []

    def score(tensors: Any) -> Any:
        with WATCH.call():
            call = WATCH._calls[max(WATCH._calls)]
            seen.append((tensors["x"].tolist(), call.stage, call.about))
        return {"y": tensors["x"]}

    model = Function(MODEL.inputs, MODEL.outputs, score)
    with WATCH.doing("checking the golden vectors"):
        check_vectors(Pipeline(CONTRACT, model), read_vectors(file, CONTRACT), GOLDEN)
    stage = "checking the golden vectors"
    assert seen == [
        ([0.0], stage, "vector 0 (line 1 of the golden file)"),
        ([1.0], stage, "vector 1 (line 3 of the golden file)"),
        ([0.0, 1.0], stage, "vectors 0 to 1"),
    ]


def test_slow_vectors_are_scored_together_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "ALONE_SECONDS", -1.0)
    sizes = []

    def score(tensors: Any) -> Any:
        sizes.append(len(tensors["x"]))
        return {"y": tensors["x"]}

    model = Function(MODEL.inputs, MODEL.outputs, score)
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(vector(x, y=x)) for x in (0, 1, 1)))
    check_vectors(Pipeline(CONTRACT, model), read_vectors(file, CONTRACT), GOLDEN)
    assert sizes == [3]


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (lambda x: x - 2 * x.mean() + 1, "y: expected 0, got 1"),
        (lambda x: x if len(x) > 1 else x[0], "shape []"),
        (lambda x: x / (len(x) > 1), "y: the model answered NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*divide")
def test_outputs_that_depend_on_the_other_records_are_found(
    tmp_path: Path, score: Any, told: str
) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(vector(x, y=x)) for x in (0, 1)))
    model = Function(MODEL.inputs, MODEL.outputs, lambda given: {"y": score(given["x"])})
    with pytest.raises(GoldenMismatch) as error:
        check_vectors(Pipeline(CONTRACT, model), read_vectors(file, CONTRACT), GOLDEN)
    assert "vector 0 is right beside the others, but scored alone: " in str(error.value)
    assert told in str(error.value)


def test_a_record_scored_alone_may_be_rounded_otherwise(tmp_path: Path) -> None:
    exactly = GoldenVectors(uri="file:///g", absolute_tolerance=0.0, relative_tolerance=0.0)
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(vector(x, y=x)) for x in (0, 1)))
    model = Function(
        MODEL.inputs,
        MODEL.outputs,
        lambda given: {"y": given["x"] + np.float32(1e-6 * (len(given["x"]) == 1))},
    )
    numbers = CONTRACT.model_copy(update={"outputs": CONTRACT.outputs[:1]})
    check_vectors(Pipeline(numbers, model), read_vectors(file, numbers), exactly)


@pytest.mark.parametrize(
    ("expected", "got"),
    [(2**53 + 1, np.int64(2**53)), (2**64 - 1, np.uint64(2**64 - 2)), ([2**53 + 1], [2**53])],
)
def test_whole_numbers_are_compared_exactly(expected: Any, got: Any) -> None:
    golden = GoldenVectors(uri="file:///g", absolute_tolerance=0.0, relative_tolerance=0.0)
    assert compare(expected, got, golden) is not None
    assert compare(expected, np.asarray(expected), golden) is None
