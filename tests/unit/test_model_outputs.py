"""Only the outputs a contract reads are asked of a model, and its names are shown escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fourways_api import Contract
from fourways_api.model import ModelReference
from fourways_runtime.errors import MESSAGE_CHARACTERS, ContractMismatch, ModelError
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit.models import Function

FLOAT = TensorProto.FLOAT
X = helper.make_tensor_value_info("x", FLOAT, ["N", 1])
Y = helper.make_tensor_value_info("y", FLOAT, ["N", 1])
IDENTITY = helper.make_node("Identity", ["x"], ["y"])
HOSTILE = "x\n\x1b[31mRED\x1b]0;title\x07\u202e"


DOMAINS = {"": 17, "ai.onnx.ml": 1}


def load(
    folder: Path, nodes: list[Any], outputs: list[Any], domains: Iterable[str] = DOMAINS
) -> models.Model:
    graph = helper.make_graph(nodes, "g", [X], outputs)
    imports = [helper.make_opsetid(domain, DOMAINS[domain]) for domain in domains]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (folder / "model").write_bytes(model.SerializeToString())
    reference = ModelReference(uri="file:///m.onnx", version="1")
    return models.load(folder / "model", reference, threads=1)


def contract(output: str, kind: str = "float32") -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"name": "y", "type": kind, "tensor": output}],
        }
    )


def answers(model: models.Model, given: Contract) -> list[Any]:
    values = {"x": np.array([1.5, 2.5], np.float32)}
    scored = Pipeline(given, model).score_columns(np.array(["a", "b"]), values)
    return list(scored.predictions.columns["y"])


def zipmap(source: str, *labels: int) -> tuple[Any, Any]:
    maps = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    node = helper.make_node(
        "ZipMap", [source], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=labels
    )
    return node, helper.make_value_info("by_class", helper.make_sequence_type_proto(maps))


def sequence() -> tuple[list[Any], list[Any]]:
    made = helper.make_node("SequenceConstruct", ["x"], ["parts"])
    return [IDENTITY, made], [Y, helper.make_tensor_sequence_value_info("parts", FLOAT, None)]


def test_an_output_that_is_no_tensor_does_not_matter_where_nobody_reads_it(tmp_path: Path) -> None:
    assert answers(load(tmp_path, *sequence()), contract("y")) == [1.5, 2.5]


def test_an_output_that_is_no_tensor_is_refused_with_the_fix_where_it_is_read(
    tmp_path: Path,
) -> None:
    with pytest.raises(ContractMismatch, match=r"output y: .*parts.*tensors as outputs"):
        Pipeline(contract("parts"), load(tmp_path, *sequence()))


@pytest.mark.parametrize("domains", [("", "ai.onnx.ml"), ("ai.onnx.ml",)])
def test_probabilities_in_maps_are_read_as_a_tensor_in_the_order_of_the_labels(
    tmp_path: Path, domains: tuple[str, ...]
) -> None:
    """CatBoost exports no other form, and imports no standard operators."""
    scored = helper.make_node(
        "LinearRegressor", ["x"], ["p"], domain="ai.onnx.ml", coefficients=[1.0, 2.0], targets=2
    )
    node, info = zipmap("p", 7, 3)
    model = load(tmp_path, [scored, node], [info], domains)
    assert model.outputs == (Tensor("by_class", "float32", (None, 2)),)
    found = model.predict({"x": np.array([[1.5], [2.5]], np.float32)})
    np.testing.assert_array_equal(found["by_class"], [[1.5, 3.0], [2.5, 5.0]])


def test_an_output_in_half_precision_is_read_in_the_contracts_type(tmp_path: Path) -> None:
    nodes = [IDENTITY, helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16)]
    half = helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["N", 1])
    assert answers(load(tmp_path, nodes, [Y, half]), contract("y")) == [1.5, 2.5]
    assert answers(load(tmp_path, nodes, [Y, half]), contract("half")) == [1.5, 2.5]


@pytest.mark.parametrize("name", [HOSTILE, "b" * 5_000_000])
def test_names_of_a_model_are_escaped_and_bounded(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], [name])]
    model = load(tmp_path, nodes, [helper.make_tensor_value_info(name, FLOAT, ["N", 1])])
    with pytest.raises(ContractMismatch) as caught:
        Pipeline(contract("y"), model)
    said = str(caught.value)
    assert len(said) < 1_000
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cf")]


@pytest.mark.parametrize("name", [HOSTILE, "b" * 5_000_000])
def test_names_of_columns_are_escaped_and_bounded(name: str) -> None:
    tensor = Tensor("X", "float32", (None, 1), (name,))
    model = Function((tensor,), (Tensor("y", "float32", (None, 1)),), lambda _: {})
    with pytest.raises(ContractMismatch) as caught:
        Pipeline(contract("y"), model)
    said = str(caught.value)
    assert len(said) < 1_000
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cf")]


def test_every_message_of_a_workload_is_escaped_and_bounded() -> None:
    said = str(ModelError(HOSTILE + "b" * 5_000_000))
    assert len(said) < MESSAGE_CHARACTERS + 200
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
