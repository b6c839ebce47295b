"""The pipeline: how fields and tensors meet, what answers come to, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fourways_api import Contract
from fourways_runtime.errors import ContractMismatch, ModelError
from fourways_runtime.scoring.columns import Array, Scored
from fourways_runtime.scoring.dense import DenseBatch
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import MODEL_INPUT_BYTES, Pipeline
from fourways_runtime.scoring.table_pipeline import TablePipeline
from tests.kit.models import Function

X = Tensor("x", "float32", (None, 2))
X_ROW_BYTES = 8
FIELDS = ({"name": "a", "type": "float32"}, {"name": "b", "type": "int32"})


def contract(inputs: Any = FIELDS, outputs: Any = ({"name": "y", "type": "float32"},)) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": list(inputs),
            "outputs": list(outputs),
        }
    )


def score(model: Function, spec: Contract, **columns: Any) -> Scored:
    count = len(next(iter(columns.values())))
    return TablePipeline(Pipeline(spec, model)).score(
        pa.RecordBatch.from_pydict({"id": list(range(count)), **columns})
    )


def zeros(tensors: Mapping[str, Array]) -> dict[str, Any]:
    return {"y": np.zeros(len(next(iter(tensors.values()))), np.float32)}


Y = Tensor("y", "float32", (None,))


def test_the_only_input_takes_all_fields_in_the_contracts_order() -> None:
    model = Function((X,), (Y,), zeros)
    score(model, contract(), b=[1, 2], a=[0.5, 1.5])
    assert model.asked["x"].dtype == np.float32
    assert model.asked["x"].tolist() == [[0.5, 1], [1.5, 2]]


def test_inputs_of_the_fields_names_are_fed_by_name_in_the_rank_they_demand() -> None:
    inputs = (Tensor("b", "int64", (None, 1)), Tensor("a", "float64", (None,)))
    model = Function(inputs, (Y,), zeros)
    score(model, contract(), a=[0.5, 1.5], b=[1, 2])
    assert model.asked["a"].tolist() == [0.5, 1.5]
    assert model.asked["b"].tolist() == [[1], [2]]
    assert (model.asked["a"].dtype, model.asked["b"].dtype) == (np.float64, np.int64)


def test_fields_that_name_a_tensor_become_its_columns() -> None:
    fields = (
        {"name": "a", "type": "float32", "tensor": "left"},
        {"name": "v", "type": "float32", "shape": [2], "tensor": "right"},
        {"name": "b", "type": "int32", "tensor": "right"},
    )
    inputs = (Tensor("right", "float32", (None, 3)), Tensor("left", "float32", ()))
    model = Function(inputs, (Y,), zeros)
    score(model, contract(fields), a=[1.0], v=[[2, 3]], b=[4])
    assert {name: t.tolist() for name, t in model.asked.items()} == {
        "left": [1.0],
        "right": [[2, 3, 4]],
    }


def test_text_and_missing_text_reach_the_model() -> None:
    field = {"name": "s", "type": "string", "nullable": True}
    model = Function((Tensor("s", "string", (None, 1)),), (Y,), zeros)
    score(model, contract([field]), s=["ü", None])
    assert model.asked["s"].tolist() == [["ü"], [""]]


@pytest.mark.parametrize("tensor_type", ["float32", "float64", ""])
def test_a_missing_number_reaches_the_model_as_the_contract_says(tensor_type: str) -> None:
    fields = [
        {"name": "a", "type": "float32", "nullable": True, "missing": -999},
        {"name": "b", "type": "float32", "nullable": True, "missing": "NaN"},
    ]
    model = Function((Tensor("x", tensor_type, (None, 2)),), (Y,), zeros)
    score(model, contract(fields), a=[1, None], b=[None, 2])
    np.testing.assert_array_equal(model.asked["x"], [[1, np.nan], [-999, 2]])
    dense = DenseBatch.of(contract(fields), model, 2)
    assert dense is not None
    dense.answers(np.array([[1, np.nan], [np.nan, 2]], np.float32))
    np.testing.assert_array_equal(model.asked["x"], [[1, np.nan], [-999, 2]])


def test_a_missing_text_reaches_the_model_as_the_contract_says() -> None:
    field = {"name": "s", "type": "string", "nullable": True, "missing": "None"}
    field |= {"categories": ["Berlin"]}
    model = Function((Tensor("s", "string", (None,)),), (Y,), zeros)
    scored = score(model, contract([field]), s=["Berlin", None, "", "Bonn"])
    assert model.asked["s"].tolist() == ["Berlin", "None", "None"]
    assert [reject.row for reject in scored.rejects] == [3]


def test_as_many_labels_as_imagenet_has_stand_in_a_contract() -> None:
    labels = [f"n{at:08}, a label of usual length" for at in range(1000)]
    output = {"name": "y", "type": "string", "reduce": "ArgMax", "categories": labels}

    def answer(tensors: Mapping[str, Array]) -> dict[str, Any]:
        return {"y": np.eye(1000, dtype=np.float32)[[999, 0]]}

    model = Function((X,), (Tensor("y", "float32", (None, 1000)),), answer)
    scored = score(model, contract(outputs=[output]), a=[1, 2], b=[1, 2])
    assert list(scored.predictions.columns["y"]) == [labels[999], labels[0]]


def test_what_is_missing_must_fit_the_models_type() -> None:
    field = {"name": "a", "type": "float32", "nullable": True, "missing": 2**24 + 1}
    model = Function((Tensor("a", "float32", (None,)),), (Y,), zeros)
    with pytest.raises(ContractMismatch, match="input a: missing: 16777217 would be rounded"):
        score(model, contract([field]), a=[1.0])


def test_a_value_the_models_type_cannot_hold_is_refused() -> None:
    fields = ({"name": "a", "type": "int64"},)
    model = Function((Tensor("a", "int32", (None,)),), (Y,), zeros)
    scored = score(model, contract(fields), a=[1, 2**40, 3])
    assert model.asked["a"].tolist() == [1, 3]
    assert [str(reject) for reject in scored.rejects] == [
        "a: 1099511627776 is outside int32 (-2147483648 to 2147483647)"
    ]
    assert scored.predictions.rows.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("fields", "inputs", "told"),
    [
        pytest.param(
            FIELDS,
            (Tensor("x", "float32", (None, 3)),),
            "a, b make 2 columns, the model's input is x float32[?, 3]",
            id="width",
        ),
        pytest.param(
            FIELDS,
            (X, Tensor("z", "float32", (None,))),
            "are a, b; the model's are x float32[?, 2], z float32[?]",
            id="names",
        ),
        pytest.param(
            ({"name": "a", "type": "string"},),
            (Tensor("x", "float32", (None, 1)),),
            "input a is string, the model's input is x float32[?, 1]",
            id="text",
        ),
        pytest.param(
            ({"name": "a", "type": "float32"},),
            (Tensor("a", "int64", (None,)),),
            "input a is float32, the model's input is a int64[?]",
            id="truncation",
        ),
        pytest.param(
            ({"name": "a", "type": "float32"},),
            (Tensor("a", "float32", (8,)),),
            "takes batches of 8 only",
            id="fixed batch",
        ),
        pytest.param(
            ({"name": "a", "type": "float32", "tensor": "q"},),
            (X,),
            "inputs are a -> q; the model's are x",
            id="tensor",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_naming_both_sides(
    fields: Any, inputs: tuple[Tensor, ...], told: str
) -> None:
    with pytest.raises(ContractMismatch) as error:
        Pipeline(contract(fields), Function(inputs, (Y,), zeros))
    assert told in str(error.value)
    assert "; " in str(error.value)


def outputs(raw: Any, *fields: dict[str, Any], tensor: Tensor | None = None) -> Scored:
    """Score as many records as the model's raw answer has."""
    told = tensor or Tensor("p", "", ())
    model = Function((X,), (told,), lambda _: {"p": raw})
    spec = contract(outputs=[{"tensor": "p", **field} for field in fields])
    return score(model, spec, a=[0.0] * len(raw), b=[0] * len(raw))


def test_one_tensor_gives_a_column_a_label_and_a_confidence() -> None:
    raw = np.array([[0.9, 0.1], [0.3, 0.7]], np.float32)
    scored = outputs(
        raw,
        {"name": "p", "type": "float64", "column": 1},
        {"name": "label", "type": "string", "reduce": "ArgMax", "categories": ["no", "yes"]},
        {"name": "sure", "type": "float32", "reduce": "Max"},
        {"name": "all", "type": "float32", "shape": [2]},
    )
    columns = scored.predictions.columns
    np.testing.assert_allclose(columns["p"], [0.1, 0.7], rtol=1e-6)
    assert columns["p"].dtype == np.float64
    assert columns["label"].tolist() == ["no", "yes"]
    np.testing.assert_allclose(columns["sure"], [0.9, 0.7])
    np.testing.assert_array_equal(columns["all"], raw)
    assert scored.predictions.keys.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("raw", "field", "good", "reasons"),
    [
        (
            np.array([[1.0], [np.nan], [np.inf]]),
            {"type": "float32"},
            [1],
            ["y: the model answered NaN", "y: the model answered inf"],
        ),
        (np.array([1.0, 1e300]), {"type": "float32"}, [1], ["y: 1e+300 does not fit float32"]),
        (
            np.array([0.2, 1.2]),
            {"type": "float64", "range": {"max": 1}},
            [0.2],
            ["y: 1.2 is above 1"],
        ),
        (np.array([2.0, 2.5]), {"type": "int32"}, [2], ["y: 2.5 is not a whole number"]),
        (np.array([0, 1, 2]), {"type": "bool"}, [False, True], ["y: 2 is not true or false"]),
        (
            np.array([0, 1, 7, -1]),
            {"type": "string", "categories": ["n", "y"]},
            ["n", "y"],
            ["y: 7 is not an index of 2 labels", "y: -1 is not an index of 2 labels"],
        ),
        (
            np.array(["n", "q"], object),
            {"type": "string", "categories": ["n", "y"]},
            ["n"],
            ["y: 'q' is not one of 2 labels"],
        ),
        (
            np.array(["ok", "a\0b"], object),
            {"type": "string"},
            ["ok"],
            ["y: is text that a database cannot store"],
        ),
        (
            np.array([[1, np.nan], [2, 1]]),
            {"type": "int64", "reduce": "ArgMax"},
            [0],
            ["y: element [1]: the model answered NaN"],
        ),
        (np.array([True, False]), {"type": "int8"}, [1, 0], []),
        (
            np.array([[1.0, 5.0], [2.0, 3.0]]),
            {"type": "float32", "shape": [2], "range": {"max": 4}},
            [[2, 3]],
            ["y: element [1]: 5 is above 4"],
        ),
    ],
)
def test_answers_are_cast_and_checked(
    raw: Any, field: dict[str, Any], good: list[Any], reasons: list[str]
) -> None:
    scored = outputs(raw, {"name": "y", **field})
    assert scored.predictions.columns["y"].tolist() == good
    assert [str(reject) for reject in scored.rejects] == reasons
    assert all(reject.key is not None for reject in scored.rejects)


@pytest.mark.parametrize(
    ("field", "tensor", "told"),
    [
        ({"type": "float32"}, Tensor("q", "float32", (None,)), "read from p, the model answers q"),
        ({"type": "float32"}, Tensor("p", "float32", (None, 2)), "set column or reduce"),
        (
            {"type": "float32", "column": 2},
            Tensor("p", "float32", (None, 2)),
            "set column or reduce",
        ),
        ({"type": "string"}, Tensor("p", "float32", (None,)), "set categories to label it"),
        ({"type": "float32"}, Tensor("p", "string", (None,)), "set type to string"),
    ],
)
def test_outputs_the_model_does_not_offer_are_refused_at_once(
    field: dict[str, Any], tensor: Tensor, told: str
) -> None:
    with pytest.raises(ContractMismatch, match=told):
        outputs(np.zeros(1), {"name": "y", **field}, tensor=tensor)


@pytest.mark.parametrize("raw", [np.zeros((1, 3)), np.zeros(()), np.array(["a"], object)])
def test_a_model_that_breaks_its_word_is_found_out(raw: Any) -> None:
    model = Function((X,), (), lambda _: {"y": raw})
    with pytest.raises(ContractMismatch):
        score(model, contract(), a=[1.0], b=[1])


def test_records_all_refused_never_reach_the_model() -> None:
    def never(_: Mapping[str, Array]) -> dict[str, Any]:
        raise AssertionError("asked")

    scored = score(Function((X,), (Y,), never), contract(), a=[None, None], b=[1, 1])
    assert (len(scored.predictions), len(scored.rejects)) == (0, 2)


def test_a_large_batch_reaches_the_model_in_parts_and_comes_back_whole() -> None:
    asked: list[int] = []

    def double(tensors: Mapping[str, Array]) -> dict[str, Any]:
        asked.append(tensors["x"].nbytes)
        return {"y": tensors["x"][:, 0] * 2}

    count = 3 * MODEL_INPUT_BYTES // X_ROW_BYTES + 1
    scored = score(Function((X,), (Y,), double), contract(), a=np.arange(count), b=[0] * count)
    assert len(asked) == 4
    assert max(asked) <= MODEL_INPUT_BYTES
    assert scored.predictions.columns["y"].tolist() == (np.arange(count) * 2.0).tolist()


def test_a_wide_record_reaches_the_model_alone_rather_than_not_at_all() -> None:
    wide = Tensor("x", "uint8", (None, 2 * MODEL_INPUT_BYTES))
    field = {"name": "x", "type": "uint8", "shape": [2 * MODEL_INPUT_BYTES]}
    model = Function((wide,), (Y,), zeros)
    values = np.zeros((2, 2 * MODEL_INPUT_BYTES), np.uint8)
    scored = Pipeline(contract((field,)), model).score_columns(np.arange(2), {"x": values})
    assert len(scored.predictions) == 2
    assert len(model.asked["x"]) == 1


def test_a_model_whose_parts_do_not_fit_together_is_found_out() -> None:
    def moody(tensors: Mapping[str, Array]) -> dict[str, Any]:
        last = len(tensors["x"]) == 1
        return {"z" if last else "y": np.zeros(len(tensors["x"]), np.float32)}

    count = MODEL_INPUT_BYTES // X_ROW_BYTES + 1
    with pytest.raises(ContractMismatch, match="different parts of a batch"):
        score(Function((X,), (Y,), moody), contract(), a=[0.0] * count, b=[0] * count)


def test_numpy_columns_come_to_the_same_predictions_as_arrow_ones() -> None:
    def doubled(tensors: Mapping[str, Array]) -> dict[str, Any]:
        return {"y": tensors["x"].sum(axis=1)}

    pipeline = Pipeline(contract(), Function((X,), (Y,), doubled))
    a, b = np.array([0.5, 1.5], np.float32), np.array([1, 2], np.int32)
    keys = np.array([7, 8])
    one = TablePipeline(pipeline).score(pa.RecordBatch.from_pydict({"id": keys, "a": a, "b": b}))
    other = pipeline.score_columns(keys, {"a": a, "b": b})
    np.testing.assert_array_equal(one.predictions.columns["y"], other.predictions.columns["y"])
    np.testing.assert_array_equal(one.predictions.keys, other.predictions.keys)


@pytest.mark.parametrize("bad", [[3], [0, 99], [7, 8, 9], list(range(16))])
def test_records_at_which_the_model_fails_are_found(bad: list[int]) -> None:
    found = _failing(bad).score_columns(*_numbered(100), isolating=True)
    assert [(reject.row, str(reject)) for reject in found.rejects] == [
        (at, f"row: no answer to {at}") for at in bad
    ]
    assert all(reject.of_model for reject in found.rejects)
    kept = [at for at in range(100) if at not in bad]
    assert found.predictions.rows.tolist() == kept
    assert found.predictions.columns["y"].tolist() == kept


@pytest.mark.parametrize("bad", [list(range(17)), list(range(100))])
def test_a_model_that_fails_at_many_records_is_broken(bad: list[int]) -> None:
    with pytest.raises(ModelError, match="no answer to"):
        _failing(bad).score_columns(*_numbered(100), isolating=True)


def test_a_failure_is_not_looked_into_where_nobody_asks() -> None:
    with pytest.raises(ModelError, match="no answer to 3"):
        _failing([3]).score_columns(*_numbered(100))


def _numbered(count: int) -> tuple[Any, dict[str, Any]]:
    return np.arange(count), {"x": np.arange(count, dtype=np.float32)}


def _failing(bad: list[int]) -> Pipeline:
    def score(tensors: Any) -> Any:
        wrong = [at for at in tensors["x"].reshape(-1).tolist() if at in bad]
        if wrong:
            raise ModelError(f"no answer to {wrong[0]:g}")
        return {"y": tensors["x"]}

    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    shape = (None,)
    return Pipeline(
        contract,
        Function((Tensor("x", "float32", shape),), (Tensor("y", "float32", shape),), score),
    )
