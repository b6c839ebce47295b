"""The input of chaos runs: a table with good rows, bad rows and repeated keys, and a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

CONTRACT: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": "age", "type": "float32", "range": {"min": 0}},
        {"name": "spend", "type": "float32"},
    ],
    "outputs": [{"name": "score", "type": "float32"}],
}


def model(width: int = 512) -> bytes:
    """Return a slow model: a network without meaning, ``width`` wide."""
    chance = np.random.default_rng(0)
    scale = math.sqrt(width)
    wide = chance.normal(size=(2, width)).astype(np.float32)
    deep = (chance.normal(size=(width, width)) / scale).astype(np.float32)
    out = (chance.normal(size=(width, 1)) / scale).astype(np.float32)
    weights = [
        numpy_helper.from_array(w, name) for w, name in ((wide, "a"), (deep, "b"), (out, "c"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "b"], ["j"]),
        helper.make_node("Tanh", ["j"], ["k"]),
        helper.make_node("MatMul", ["k", "c"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def table(rows: int) -> pa.Table:
    """Return a table in which 1 row in 97 is rejected, and 1 key in 101 occurs again."""
    number = np.arange(rows)
    age = (number % 90).astype(np.float32)
    age[number % 97 == 0] = -1
    keys = np.where(number % 101 == 0, number // 2, number)
    return pa.table(
        {"id": [f"c{key}" for key in keys], "age": age, "spend": (number % 1000).astype(np.float32)}
    )
