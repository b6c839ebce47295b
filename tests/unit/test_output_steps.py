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
