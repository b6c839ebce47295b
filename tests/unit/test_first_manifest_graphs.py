"""ONNX graphs of odd shapes, names and bounds: what a manifest written from one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import TensorProto, helper

from fourways_cli.main import app
from tests.kit.cli import CliRunner
from tests.kit.first_manifest import init, proven, refused


def graph(inputs: list[tuple[str, int, list[Any]]], nodes: list[Any], outputs: list[Any]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_dimensions_that_the_model_leaves_free_get_a_size_that_works(tmp_path: Path) -> None:
    pooled = helper.make_node("MaxPool", ["image"], ["pooled"], kernel_shape=[8, 8])
    (tmp_path / "m.onnx").write_bytes(
        graph(
            [("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [pooled],
            [("pooled", TensorProto.FLOAT, None)],
        )
    )
    # A stream stores its predictions, in columns of one size.
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml", "--mode", "streaming")
    (field,) = proven(tmp_path / "m.yaml").spec.contract.inputs
    assert (field.name, field.shape) == ("image", (3, 8, 8))
    assert "leaves sizes of the shape free" in (tmp_path / "m.yaml").read_text()
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml", "--force")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].shape == (3, -1, -1)
    assert contract.outputs[0].shape == (3, -1, -1)


def sums(folder: Path) -> Path:
    """Write a model that returns the sum of two numbers, a and b, of each row."""
    made = graph(
        [(name, TensorProto.DOUBLE, ["n", 1]) for name in "ab"],
        [helper.make_node("Add", ["a", "b"], ["total"])],
        [("total", TensorProto.DOUBLE, ["n", 1])],
    )
    (folder / "m.onnx").write_bytes(made)
    return folder / "m.onnx"


@pytest.mark.parametrize(
    ("extremes", "bounds"),
    [
        (("1.7e308", "0"), (True, False)),
        (("-1.7e308", "0"), (False, True)),
        (("-1.7e308", "1.7e308"), (False, False)),
        (("5e-324", "0"), (True, True)),
    ],
)
def test_a_bound_that_no_float_can_express_is_left_out(
    extremes: tuple[str, str], bounds: tuple[bool, bool], tmp_path: Path
) -> None:
    rows = [f"k{at},{extremes[at % 2]},0" for at in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["key,a,b", *rows]) + "\n")
    init(sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    found = proven(tmp_path / "m.yaml").spec.contract.inputs[0].range
    has = (False, False) if found is None else (found.min is not None, found.max is not None)
    assert has == bounds


def test_a_table_with_another_separator_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key;a;b\nk1;1;2\n")
    said = refused(sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    assert "has a semicolon between the columns: write it with commas" in said


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("0.5", "patient_id is neither text nor whole numbers"),
        ("same", "patient_id repeats values, or lacks some"),
    ],
)
def test_init_says_why_a_column_is_not_the_key(key: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"patient_id,a,b\n{key},1,2\n{key},2,2\n")
    asked = (sums(tmp_path), "--sample", tmp_path / "t.csv", "-o", tmp_path / "m.yaml")
    result = CliRunner().invoke(app, ["init", *map(str, asked), "--mode", "batch"])
    assert result.exit_code == 0, result.output
    assert f"row is the number of the row, because {why}" in " ".join(result.output.split())


def test_names_of_a_model_write_no_yaml_of_their_own(tmp_path: Path) -> None:
    hostile = "x\n  image: evil\x1b[31m #: {a: &b"
    (tmp_path / "m.onnx").write_bytes(
        graph(
            # Names that are equal once cleaned: each field has to name its tensor.
            [(name, TensorProto.FLOAT, ["n", 2]) for name in (hostile, hostile.upper())],
            [helper.make_node("Add", [hostile, hostile.upper()], ["sum\n evil"])],
            [("sum\n evil", TensorProto.FLOAT, ["n", 2])],
        )
    )
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].tensor == hostile
    assert contract.outputs[0].tensor == "sum\n evil"
    text = (tmp_path / "m.yaml").read_text()
    assert "\x1b" not in text
    assert set(yaml.safe_load(text)["spec"]) == {
        "mode", "model", "contract", "realtime", "resources",
    }  # fmt: skip


def test_an_output_that_is_no_tensor_is_left_out_with_the_reason(tmp_path: Path) -> None:
    pieces = helper.make_node("SplitToSequence", ["x"], ["parts"])
    made = helper.make_graph(
        [pieces, helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [
            helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    init(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")
    assert [each.name for each in proven(tmp_path / "m.yaml").spec.contract.outputs] == ["y"]
    assert "# Left out: parts: the model's output parts is" in (tmp_path / "m.yaml").read_text()


def test_a_sample_of_lists_feeds_the_only_tensor(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(
        graph(
            [("series", TensorProto.FLOAT, ["n", "t", 2])],
            [helper.make_node("ReduceMean", ["series"], ["mean"], axes=[1, 2], keepdims=0)],
            [("mean", TensorProto.FLOAT, ["n"])],
        )
    )
    rows = [[[float(at), 1.0], [2.0, 3.0], [4.0, 5.0]] for at in range(60)]
    kind = pa.list_(pa.list_(pa.float32()))
    ids = [f"s{at}" for at in range(60)]
    pq.write_table(pa.table({"id": ids, "window": pa.array(rows, kind)}), tmp_path / "t.parquet")
    init(tmp_path / "m.onnx", "--sample", tmp_path / "t.parquet", "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert contract.inputs[0].shape == (3, 2)
    assert contract.golden_vectors is not None


# ---------------------------------------------------------------- MLflow folders, formats, pickles


def test_a_model_fixed_to_a_batch_of_one_needs_no_edit_and_its_price_is_told(
    tmp_path: Path,
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    table = tmp_path / "t.csv"
    table.write_text("id,a,b\nu,1,-2\nv,3,4\n")
    init(tmp_path / "m.onnx", "--sample", table, "-o", tmp_path / "m.yaml")
    contract = proven(tmp_path / "m.yaml").spec.contract
    assert [field.name for field in contract.inputs] == ["a", "b"]
    assert "called for each record" in (tmp_path / "m.yaml").read_text()


def test_what_no_contract_can_declare_is_refused_with_the_fix(tmp_path: Path) -> None:
    def said(inputs: list[Any], outputs: list[Any], op: str = "Identity") -> str:
        names = [each.name for each in inputs] or ["one"]
        constants = [] if inputs else [onnx.numpy_helper.from_array(np.ones((1, 3), "f4"), "one")]
        graph = helper.make_graph(
            [helper.make_node(op, names, ["y"])], "g", inputs, outputs, constants
        )
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        return refused(tmp_path / "m.onnx", "-o", tmp_path / "m.yaml")

    def value(name: str, *sizes: int | str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, sizes)

    assert "the model takes no inputs" in said([], [value("y", 1, 3)])
    deep = ("N", 1, 2, 1, 2, 2)
    text = said([value("x", *deep)], [value("y", *deep)])
    assert "5 dimensions per record, and a contract's at most 4; export it with fewer" in text
    places = value("y", 2, "M", kind=TensorProto.INT64)
    text = said([value("x", "N", 3)], [places], op="NonZero")
    assert "no output that can be served: y: it has no elements for a record" in text


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.20.0", "made by maker 1.20.0"), ("Git info:\n  Commit: f8\n", "made by maker")],
)
def test_the_producer_of_a_file_is_named_on_one_line(
    tmp_path: Path, version: str, said: str
) -> None:
    path = sums(tmp_path)
    model = onnx.load(path)
    model.producer_name, model.producer_version = "maker", version
    onnx.save(model, path)
    init(path, "-o", tmp_path / "m.yaml")
    assert f"# The file says: {said}\n" in (tmp_path / "m.yaml").read_text()


def test_a_column_of_times_is_refused_with_the_types_that_read_it(tmp_path: Path) -> None:
    times = pa.array([0, 1], pa.timestamp("ms"))
    pq.write_table(pa.table({"a": times, "b": [1.0, 2.0]}), tmp_path / "t.parquet")
    said = refused(sums(tmp_path), "--sample", tmp_path / "t.parquet", "-o", tmp_path / "m.yaml")
    assert "column a of the sample" in said
    assert "declare it as date, timestamp_s" in " ".join(said.split())
