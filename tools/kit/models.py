"""Small ONNX models and their contracts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


WEIGHTS = np.array([[0.5], [-2.0], [0.125]], np.float32)


def onnx_bytes(nodes: Iterable[Any], inputs: Any, outputs: Any, constants: Any = ()) -> bytes:
    """Build a model; inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*it) for it in inputs],
        [helper.make_tensor_value_info(*it) for it in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def linear() -> bytes:
    """y = x · w, of shapes (N, 3) and (N, 1)."""
    return onnx_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["N", 3])],
        [("y", FLOAT, ["N", 1])],
        [("w", WEIGHTS)],
    )


LINEAR: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": "age", "type": "int32", "range": {"min": 0, "max": 120}},
        {"name": "spend", "type": "float32"},
        {"name": "rate", "type": "float32", "range": {"min": -10, "max": 10}},
    ],
    "outputs": [{"name": "score", "type": "float32", "tensor": "y"}],
}
