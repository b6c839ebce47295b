"""Outputs that are decided from a model's numbers: thresholds and the greatest of many classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fourways_api import Contract
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.labels import with_labels
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit.models import Function

SCORES = np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0], [np.nan, 1, 2]], np.float32)
LABELS = ["cat", "dog", "eel"]


def contract(*outputs: dict[str, Any], **more: Any) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"tensor": "p", **output} for output in outputs],
            **more,
        }
    )


def scored(spec: Contract, raw: Any = SCORES, shape: Any = (None, 3)) -> Any:
    model = Function(
        (Tensor("x", "float32", (None,)),),
        (Tensor("p", "float32", shape),),
        lambda _: {"p": raw},
    )
    columns = {"x": np.zeros(len(raw), np.float32)}
    return Pipeline(spec, model).score_columns(np.arange(len(raw)), columns)


def test_the_greatest_come_first_with_labels_and_values() -> None:
    found = scored(
        contract(
            {"name": "top", "type": "string", "reduce": "TopK", "shape": [2], "categories": LABELS},
            {"name": "score", "type": "float32", "reduce": "TopKMax", "shape": [2]},
            {"name": "index", "type": "int32", "reduce": "TopK", "shape": [1]},
        )
    )
    answers = found.predictions.columns
    assert answers["top"].tolist() == [["dog", "eel"], ["cat", "dog"]]
    np.testing.assert_array_equal(answers["score"], np.float32([[0.6, 0.3], [0.5, 0.5]]))
    assert answers["index"].tolist() == [[1], [0]]
    assert [str(each) for each in found.rejects] == ["top: element [0]: the model answered NaN"]


def test_the_greatest_whole_number_is_found_exactly() -> None:
    raw = np.array([[2**53, 2**53 + 1, 2**53], [-1, -1, -(2**53) - 1]])
    for kind, numbers in (("int64", raw), ("uint64", raw[:1].astype(np.uint64) + 2**63)):
        found = scored(
            contract(
                {"name": "score", "type": kind, "reduce": "TopKMax", "shape": [2]},
                {"name": "index", "type": "int32", "reduce": "TopK", "shape": [3]},
            ),
            numbers,
        ).predictions.columns
        assert found["score"].tolist()[0] == sorted(numbers[0].tolist(), reverse=True)[:2]
        assert found["index"].tolist() == [[1, 0, 2], [0, 1, 2]][: len(numbers)]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"max": 2**53}, ["9007199254740993 is above 9007199254740992"]),
        ({"min": 2**53 + 2}, ["9007199254740993 is below 9007199254740994"]),
        ({"min": 2**53, "max": 2**53 + 2}, []),
        ({"min": -1e300, "max": 1e300}, []),
        ({"min": 1e300}, ["9007199254740993 is below 1e+300"]),
        ({"max": -1e300}, ["9007199254740993 is above -1e+300"]),
        ({"min": 0.5, "max": 9007199254740992.5}, ["9007199254740993 is above 9007199254740992"]),
    ],
)
def test_whole_numbers_are_held_to_their_range_exactly(limits: Any, wanted: list[str]) -> None:
    spec = contract({"name": "y", "type": "int64", "tensor": "p", "column": 0, "range": limits})
    found = scored(spec, np.array([[2**53 + 1]]), (None, 1))
    assert [reject.reason for reject in found.rejects] == wanted


@pytest.mark.parametrize(
    "output", [{"type": "int64", "reduce": "ArgMax"}, {"type": "float32", "reduce": "Max"}]
)
@pytest.mark.parametrize("raw", [np.array([["a", "b"]]), np.array([[1, "b"]], object)])
def test_texts_have_no_greatest(output: Any, raw: Any) -> None:
    undeclared = Function((), (), lambda _: {"p": raw})
    spec = contract({"name": "y", "tensor": "p", **output})
    with pytest.raises(ContractMismatch, match="the model answers text; remove reduce"):
        Pipeline(spec, undeclared).score_columns(np.arange(1), {"x": np.zeros(1, np.float32)})


def test_labels_of_a_file_are_those_of_the_greatest() -> None:
    spec = contract(
        {"name": "top", "type": "string", "reduce": "TopK", "shape": [1]},
        labels={"uri": "file:///l.txt", "digest": f"sha256:{'0' * 64}"},
    )
    found = scored(with_labels(spec, tuple(LABELS)), SCORES[:2])
    assert found.predictions.columns["top"].tolist() == [["dog"], ["cat"]]
    with pytest.raises(ContractMismatch, match="2 labels for the 3 classes"):
        scored(with_labels(spec, ("a", "b")))


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ({"type": "bool"}, [True, True]),
        ({"type": "uint8"}, [1, 1]),
        ({"type": "string", "categories": ["ok", "fraud"]}, ["fraud", "fraud"]),
        ({"type": "bool", "threshold": 0.55}, [True, False]),
    ],
)
def test_a_threshold_decides_from_its_value_on(output: dict[str, Any], wanted: list[Any]) -> None:
    found = scored(contract({"name": "y", "column": 1, "threshold": 0.5, **output}), SCORES[:2])
    assert found.predictions.columns["y"].tolist() == wanted


def test_each_value_has_its_threshold_and_nan_is_neither() -> None:
    found = scored(contract({"name": "y", "type": "bool", "shape": [3], "threshold": 0.5}))
    assert found.predictions.columns["y"].tolist() == [[False, True, False], [True, True, False]]
    assert [str(each) for each in found.rejects] == ["y: element [0]: the model answered NaN"]


def test_more_than_there_are_is_refused_when_the_model_is_bound() -> None:
    spec = contract({"name": "y", "type": "int64", "reduce": "TopK", "shape": [4]})
    for shape in ((None, 3), (None, None)):
        with pytest.raises(ContractMismatch, match=r"output y has shape \[4\]"):
            scored(spec, shape=shape)


@pytest.mark.parametrize(
    "output",
    [
        {"type": "int64", "reduce": "TopK"},
        {"type": "float32", "threshold": 0.5},
        {"type": "string", "threshold": 0.5},
        {"type": "string", "threshold": 0.5, "categories": LABELS},
        {"type": "bool", "threshold": 0.5, "reduce": "ArgMax"},
        {"type": "bool", "threshold": 0.5, "reduce": "TopK", "shape": [1]},
    ],
)
def test_steps_that_contradict_each_other_are_refused(output: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        contract({"name": "y", **output})
