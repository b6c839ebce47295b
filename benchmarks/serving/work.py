"""The work of all servers: one model, and requests that all differ.

If one body were repeated, the branch predictor would learn the trees and all results would be too
good.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper

FEATURES = 20
TREES = 100
DEPTH = 6
BODIES = {1: 2048, 32: 64}
"""Number of different requests, by rows per request."""

Array = NDArray[Any]


def forest() -> bytes:
    """Create a regression forest of full trees with random splits, the same every time."""
    random = np.random.default_rng(7)
    inner, nodes = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    ids = np.arange(nodes)
    trees, leaves = np.repeat(np.arange(TREES), nodes), np.arange(inner, nodes)
    split = ids < inner
    attributes: dict[str, Any] = {
        "nodes_treeids": trees,
        "nodes_nodeids": np.tile(ids, TREES),
        "nodes_featureids": random.integers(0, FEATURES, TREES * nodes),
        "nodes_values": random.normal(0, 0.7, TREES * nodes).astype(np.float32),
        "nodes_modes": [b"BRANCH_LEQ" if s else b"LEAF" for s in np.tile(split, TREES)],
        "nodes_truenodeids": np.tile(np.where(split, 2 * ids + 1, 0), TREES),
        "nodes_falsenodeids": np.tile(np.where(split, 2 * ids + 2, 0), TREES),
        "target_treeids": np.repeat(np.arange(TREES), len(leaves)),
        "target_nodeids": np.tile(leaves, TREES),
        "target_ids": np.zeros(TREES * len(leaves), np.int64),
        "target_weights": random.normal(0, 0.1, TREES * len(leaves)).astype(np.float32),
    }
    node = helper.make_node("TreeEnsembleRegressor", ["input"], ["score"], domain="ai.onnx.ml")
    attributes |= {"n_targets": 1, "post_transform": "NONE"}
    for name, value in attributes.items():
        made = value.tolist() if isinstance(value, np.ndarray) else value
        node.attribute.append(helper.make_attribute(name, made))
    graph = helper.make_graph(
        [node],
        "forest",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


CONTRACT: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": f"x{at}", "type": "float32", "range": {"min": -100, "max": 100}}
        for at in range(FEATURES)
    ],
    "outputs": [{"name": "score", "type": "float32", "range": {"min": -1000, "max": 1000}}],
}


@dataclass(frozen=True, slots=True)
class Question:
    """A request: its records (rows, features), and its body as JSON or binary."""

    values: Array
    body: bytes
    header_length: int | None = None


def questions(rows: int, *, binary: bool = False) -> list[Question]:
    """Return the different requests of one size."""
    random = np.random.default_rng(rows)
    made = []
    for _ in range(BODIES[rows]):
        values = random.normal(0, 1, (rows, FEATURES)).astype(np.float32)
        tensor: dict[str, Any] = {"name": "input", "shape": [rows, FEATURES], "datatype": "FP32"}
        if not binary:
            tensor["data"] = values.reshape(-1)
            body = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
            made.append(Question(values, body))
            continue
        tensor["parameters"] = {"binary_data_size": values.nbytes}
        request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        header = orjson.dumps(request)
        made.append(Question(values, header + values.tobytes(), len(header)))
    return made


def write_bodies(file: Path, made: list[Question]) -> None:
    """Write bodies for the load generator: for each its length, its header's length and its
    bytes."""
    with file.open("wb") as out:
        for question in made:
            out.write(struct.pack("<II", len(question.body), question.header_length or 0))
            out.write(question.body)
