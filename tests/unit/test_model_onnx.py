"""ONNX models: what is loaded and answered, what is refused and with which words."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fourways_api import Contract
from fourways_api.model import ModelReference
from fourways_runtime.errors import ContractMismatch, ModelError, ModelNotLoadable
from fourways_runtime.model_watch import ModelWatch
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model import Tensor, onnx_graph
from fourways_runtime.scoring.model.base import SelectiveModel
from fourways_runtime.scoring.model.onnx_model import OnnxModel
from fourways_runtime.scoring.model.protobuf_schema import message_class
from fourways_runtime.scoring.model.row_by_row import row_by_row
from fourways_runtime.scoring.model.watched import watched
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit.models import Function

WEIGHTS = np.array([3.0, 4.0], np.float32)


def load(
    raw: bytes, folder: Path, *, external: Path | None = None, allow: bool = False
) -> models.Model:
    private = folder / "private"
    private.mkdir(exist_ok=True)
    (private / "model").write_bytes(raw)
    reference = ModelReference(uri="file:///m.onnx", version="1", allow_external_data=allow)
    return models.load(private / "model", reference, threads=1, external_root=external)


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def build(
    weights: TensorProto | None = None,
    *,
    op: str = "Add",
    domain: str = "",
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    nodes: list[Any] | None = None,
    functions: list[Any] | None = None,
) -> onnx.ModelProto:
    """y = x + w, by default; x and y of shape (N, 2)."""
    initializer = weights or numpy_helper.from_array(WEIGHTS, "w")
    graph = helper.make_graph(
        nodes or [helper.make_node(op, ["x", "w"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 2])],
        [helper.make_tensor_value_info("y", kind, ["N", 2])],
        [initializer],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions or [])


def bytes_of(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())


def test_a_model_is_loaded_and_answers(tmp_path: Path) -> None:
    model = load(bytes_of(build()), tmp_path)
    assert model.inputs == (Tensor("x", "float32", (None, 2)),)
    assert model.outputs == (Tensor("y", "float32", (None, 2)),)
    answer = model.predict({"x": np.ones((3, 2), np.float32), "unread": np.zeros(3)})
    np.testing.assert_array_equal(answer["y"], [[4, 5]] * 3)


def test_threads_are_what_was_asked_for_and_do_not_spin(tmp_path: Path) -> None:
    model = load(bytes_of(build()), tmp_path)
    assert isinstance(model, OnnxModel)
    options = model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert model._session.get_providers() == ["CPUExecutionProvider"]


def test_strings_go_in_and_out(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"])],
        "g",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["N"])],
    )
    raw = bytes_of(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    model = load(raw, tmp_path)
    assert model.inputs == (Tensor("s", "string", (None,)),)
    words = np.array(["a", "ü"], object)
    assert model.predict({"s": words})["t"].tolist() == ["a", "ü"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param(b"", "no graph and opset", id="empty"),
        pytest.param(b"not a model at all", "not ONNX", id="text"),
        pytest.param(bytes_of(build())[:60], "not ONNX, or it is truncated", id="truncated"),
        pytest.param(b"\x00\x00\x00\x00ORTM" + b"\0" * 100, "not ONNX", id="ort-format"),
        pytest.param(b"\x80\x04\x95pickle", "not", id="pickle"),
        pytest.param(bytes_of(build(opset=99)), "opset 99; this runtime supports", id="opset"),
        pytest.param(
            bytes_of(build(op="Read", domain="com.evil")), "com.evil:Read", id="custom-domain"
        ),
        pytest.param(
            bytes_of(build(op="EPContext", domain="com.microsoft")), "EPContext", id="ep-context"
        ),
        pytest.param(bytes_of(build(op="NoSuchOp")), "NoSuchOp", id="unknown-op"),
        pytest.param(bytes_of(build(kind=TensorProto.FLOAT16)), "cannot load", id="bad-types"),
    ],
)
def test_what_is_no_model_for_us_is_said(raw: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match=said) as caught:
        load(raw, tmp_path)
    assert "/onnxruntime_src" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_what_onnxruntime_says_of_a_damaged_file_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build()
    model.graph.node[0].op_type = "Absent"
    raw = bytes_of(model).replace(b"Absent", b"Ab\x1b\xffnt")
    with pytest.raises(ModelNotLoadable):
        load(raw, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_half_precision_is_rounded_at_the_model_and_nowhere_else(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = load(bytes_of(build(nodes=nodes, kind=TensorProto.FLOAT16)), tmp_path)
    assert model.inputs == (Tensor("x", "float16", (None, 2)),)
    field = {"type": "float32", "shape": [2]}
    spec = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [{"name": "x", **field}],
            "outputs": [{"name": "y", **field}],
        }
    )
    given = np.array([[0.1, -2], [65504, 1], [70000, 1]], np.float32)
    scored = Pipeline(spec, model).score_columns(np.arange(3), {"x": given})
    answers = scored.predictions.columns["y"]
    assert answers.dtype == np.float32
    np.testing.assert_array_equal(answers, given[:2].astype(np.float16).astype(np.float32))
    assert [str(one) for one in scored.rejects] == ["x: element [0]: 70000 does not fit float16"]


def test_a_type_that_no_contract_can_hold_is_refused_with_the_fix(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    kind = TensorProto.FLOAT8E4M3FN
    with pytest.raises(ModelNotLoadable, match="float8e4m3fn; cast it to one of bool, int8"):
        load(bytes_of(build(nodes=nodes, kind=kind, opset=19)), tmp_path)


def test_inputs_that_do_not_fit_are_told_from_a_model_that_fails(tmp_path: Path) -> None:
    model = load(bytes_of(build()), tmp_path)
    with pytest.raises(ContractMismatch, match="'x', which was not given"):
        model.predict({})
    with pytest.raises(ContractMismatch, match="rejected its inputs"):
        model.predict({"x": np.zeros((1, 2), np.float64)})
    with pytest.raises(ContractMismatch, match="rejected its inputs"):
        model.predict({"x": np.zeros((1, 5), np.float32)})
    reshape = [
        helper.make_node(
            "Constant", [], ["s"], value=numpy_helper.from_array(np.array([4, 1]), "s")
        ),
        helper.make_node("Reshape", ["x", "s"], ["y"]),
    ]
    failing = load(bytes_of(build(nodes=reshape)), tmp_path)
    with pytest.raises(ModelError, match="the model failed"):
        failing.predict({"x": np.zeros((1, 2), np.float32)})


# ---------------------------------------------------------------- weights elsewhere


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's own folder, with weights in it and a secret beside it."""
    made = tmp_path / "source" / "model"
    (made / "sub").mkdir(parents=True)
    WEIGHTS.tofile(made / "w.bin")
    WEIGHTS.tofile(made / "sub" / "w.bin")
    WEIGHTS.tofile(tmp_path / "source" / "secret.bin")
    (made / "link.bin").symlink_to("../secret.bin")
    (made / "away").symlink_to("..")
    os.link(tmp_path / "source" / "secret.bin", made / "hard.bin")
    os.mkfifo(made / "fifo.bin")
    return made


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin"])
def test_weights_beside_the_model_are_refused_unless_allowed(
    location: str, folder: Path, tmp_path: Path
) -> None:
    raw = bytes_of(build(external(location)))
    with pytest.raises(ModelNotLoadable, match="allowExternalData"):
        load(raw, tmp_path, external=folder, allow=False)
    with pytest.raises(ModelNotLoadable, match="allowExternalData"):
        load(raw, tmp_path, external=None, allow=True)
    model = load(raw, tmp_path, external=folder, allow=True)
    (folder / location).write_bytes(b"overwritten")
    answer = model.predict({"x": np.zeros((1, 2), np.float32)})
    np.testing.assert_array_equal(answer["y"], [WEIGHTS])


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "sub/../../secret.bin",
        "sub/../w.bin",
        "/etc/passwd",
        "link.bin",
        "away/secret.bin",
        "hard.bin",
        "fifo.bin",
        "sub",
        "missing.bin",
        "",
        "w.bin/",
        "./w.bin",
        "*/_ORT_MEM_ADDR_/*",
        "w.bin\0.txt",
    ],
)
def test_weights_outside_the_folder_are_refused_even_if_allowed(
    location: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotLoadable, match="weights"):
        load(bytes_of(build(external(location))), tmp_path, external=folder, allow=True)


def _with_attribute(name: str, value: Any) -> onnx.ModelProto:
    model = build()
    model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    return model


def _subgraph() -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [external("../secret.bin")])


def _hidden() -> dict[str, onnx.ModelProto]:
    """The places of a model where a tensor can hide."""
    sparse = helper.make_sparse_tensor(
        external("../secret.bin"), numpy_helper.from_array(np.array([0, 1])), [2]
    )
    in_sparse = build()
    in_sparse.graph.sparse_initializer.append(sparse)
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.append(helper.make_attribute("value", external("../secret.bin")))
    function = helper.make_function(
        "local", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)]
    )
    training = build()
    training.training_info.add().algorithm.CopyFrom(_subgraph())
    # The data_location is left out: the entries alone are enough for us.
    unmarked = external("../secret.bin")
    unmarked.ClearField("data_location")
    nested = _subgraph()
    for _ in range(10):
        node = helper.make_node("If", [], [])
        node.attribute.append(helper.make_attribute("then_branch", nested))
        nested = helper.make_graph([node], "outer", [], [])
    return {
        "attribute": _with_attribute("value", external("../secret.bin")),
        "attributes": _with_attribute("values", [external("../secret.bin")]),
        "sparse-attribute": _with_attribute("sparse_value", sparse),
        "subgraph": _with_attribute("body", _subgraph()),
        "subgraphs": _with_attribute("bodies", [_subgraph()]),
        "deep-subgraph": _with_attribute("body", nested),
        "sparse": in_sparse,
        "function": build(functions=[function]),
        "training": training,
        "unmarked": build(unmarked),
    }


@pytest.mark.parametrize("place", sorted(_hidden()))
def test_weights_elsewhere_are_found_wherever_they_hide(place: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="allowExternalData"):
        load(bytes_of(_hidden()[place]), tmp_path)


def test_a_graph_given_in_two_pieces_is_read_whole(tmp_path: Path) -> None:
    # protobuf merges a message that comes twice: a parser that takes the last misses the first.
    hidden = onnx.ModelProto()
    hidden.graph.initializer.append(external("../secret.bin"))
    for raw in (
        bytes_of(hidden) + bytes_of(build()),
        bytes_of(build()) + bytes_of(hidden),
    ):
        with pytest.raises(ModelNotLoadable, match="allowExternalData"):
            load(raw, tmp_path)


def test_operators_hidden_in_functions_are_found(tmp_path: Path) -> None:
    function = helper.make_function(
        "local",
        "F",
        ["a"],
        ["b"],
        [helper.make_node("Read", ["a"], ["b"], domain="com.evil")],
        [helper.make_opsetid("com.evil", 1)],
    )
    with pytest.raises(ModelNotLoadable, match=r"com\.evil:Read"):
        load(bytes_of(build(functions=[function])), tmp_path)


def test_functions_of_the_models_own_are_no_custom_operators(tmp_path: Path) -> None:
    function = helper.make_function(
        "local",
        "Twice",
        ["a", "b"],
        ["c"],
        [helper.make_node("Mul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    model = load(bytes_of(build(op="Twice", domain="local", functions=[function])), tmp_path)
    answer = model.predict({"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(answer["y"], [WEIGHTS])


def test_our_field_numbers_are_onnxs() -> None:
    theirs = {
        "Model": onnx.ModelProto,
        "OperatorSet": onnx.OperatorSetIdProto,
        "Training": onnx.TrainingInfoProto,
        "Function": onnx.FunctionProto,
        "Graph": onnx.GraphProto,
        "Node": onnx.NodeProto,
        "Attribute": onnx.AttributeProto,
        "SparseTensor": onnx.SparseTensorProto,
        "Tensor": TensorProto,
        "Entry": onnx.StringStringEntryProto,
    }
    ours = onnx_graph._SCHEMA
    for name, proto in theirs.items():
        for key, (number, _) in ours[name].items():
            assert proto.DESCRIPTOR.fields_by_name[key].number == number, (name, key)
    messages = {proto.DESCRIPTOR.name: name for name, proto in theirs.items()}
    for name, proto in theirs.items():
        reachable = {
            field.name
            for field in proto.DESCRIPTOR.fields
            if field.message_type is not None
            and field.message_type.name in messages
            and messages[field.message_type.name] != "Entry"
        }
        # A field of onnx that leads to tensors, and that we do not follow, would be a hole.
        assert reachable - {"opset_import"} <= set(ours[name]), name


def fixed(outputs: list[Any], *nodes: Any) -> bytes:
    """A model of x (1, 2), as exporters write an example of one record."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        outputs,
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    imports = [helper.make_opsetid("", 17)]
    return bytes_of(helper.make_model(graph, opset_imports=imports, ir_version=8))


def test_a_model_fixed_to_a_batch_of_one_is_called_for_each_record(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [2])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [])
    raw = fixed(
        [y, flat, total],
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "two"], ["flat"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
    )
    # A constant has to come before its use.
    model = onnx.ModelProto.FromString(raw)
    model.graph.node.insert(0, model.graph.node.pop())
    watch = ModelWatch()
    looped = watched(load(bytes_of(model), tmp_path), watch=watch)
    assert looped.inputs == (Tensor("x", "float32", (None, 2)),)
    assert [each.shape for each in looped.outputs] == [(None, 2), (None, 2), ()]
    answers = looped.predict({"x": np.array([[0, 0], [1, 2], [5, 5]], np.float32)})
    assert answers["y"].tolist() == [[3, 4], [4, 6], [8, 9]]
    assert answers["flat"].tolist() == [[3, 4], [4, 6], [8, 9]]
    assert answers["total"].tolist() == [7, 10, 17]
    assert isinstance(looped, SelectiveModel)
    assert list(looped.answering(["y"]).predict({"x": np.zeros((2, 2), np.float32)})) == ["y"]


def test_an_input_without_dimensions_is_given_to_each_record_alone(tmp_path: Path) -> None:
    """Beside a batch it would be spread over the columns of three records, without a word."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model = load(bytes_of(made), tmp_path)
    assert [each.shape for each in model.inputs] == [(None, 3), (None,)]
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [
                {"name": "x", "type": "float32", "shape": [3]},
                {"name": "s", "type": "float32"},
            ],
            "outputs": [{"name": "y", "type": "float32", "shape": [3]}],
        }
    )
    columns = {"x": np.ones((3, 3), np.float32), "s": np.array([1, 10, 100], np.float32)}
    scored = Pipeline(contract, model).score_columns(np.arange(3), columns)
    assert scored.predictions.columns["y"].tolist() == [[1] * 3, [10] * 3, [100] * 3]


def test_each_record_of_such_a_model_has_the_time_of_one_call() -> None:
    seen: list[int] = []

    class Watching(ModelWatch):
        def begin(self, rows: int, seconds: float) -> int:
            seen.append(rows)
            return super().begin(rows, seconds)

    one = Function(
        (Tensor("x", "float32", (1,)),), (Tensor("y", "float32", (1,)),), lambda x: {"y": x["x"]}
    )
    looped = watched(row_by_row(one), watch=Watching())
    assert looped.predict({"x": np.arange(3)})["y"].tolist() == [0, 1, 2]
    assert seen == [1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(np.zeros((2, 1)), r"1 record with y of shape \[2, 1\]", id="batch"),
        pytest.param(None, "has another shape for each record", id="ragged"),
    ],
)
def test_an_answer_that_is_not_one_records_is_told(answer: Any, told: str) -> None:
    def answers(x: Any) -> dict[str, Any]:
        return {"y": np.zeros((1, 1 + int(x["x"][0]))) if answer is None else answer}

    one = Function(
        (Tensor("x", "float32", (1,)),), (Tensor("y", "float32", (None, None)),), answers
    )
    with pytest.raises(ContractMismatch, match=told):
        row_by_row(one).predict({"x": np.arange(2)})


def test_a_batch_that_is_fixed_to_another_size_stays_as_it_is() -> None:
    for shapes in ([(8, 2)], [(1, 2), (8,)], [(None, 2)], [()], []):
        model = Function(tuple(Tensor("x", "float32", shape) for shape in shapes), (), dict)
        assert row_by_row(model) is model


def test_a_schema_is_read_alike_where_protobuf_is_built_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema = {"Model": {"a": (1, "*int64"), "b": (200, "Inner")}, "Inner": {"c": (1, "bytes")}}
    raw = b"\x08\x05\x08\x07\xc2\x0c\x05\x0a\x03one"
    found = []
    for package in ("fast", "public"):
        if package == "public":
            monkeypatch.setitem(sys.modules, "google._upb._message", None)
        model = message_class(package, schema)()
        model.ParseFromString(raw)
        found.append((list(model.a), model.b.c, model.HasField("b")))
    assert found == [([5, 7], b"one", True)] * 2
