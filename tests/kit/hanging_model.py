"""A model that does not return for some inputs: an ONNX Loop without end."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tools.kit.models import onnx_bytes

FLOAT = TensorProto.FLOAT


def trap(limit: float, width: int = 1) -> bytes:
    """Answer the first of ``width`` inputs, and never return if an input reaches the limit."""

    def value(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    answers = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["o1"])], "a", [], [value("o1", FLOAT, ["N", 1])]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["ci"], ["co"]),
            helper.make_node("Identity", ["xi"], ["xo"]),
        ],
        "b",
        [
            value("i", TensorProto.INT64, []),
            value("ci", TensorProto.BOOL, []),
            value("xi", FLOAT, ["N", 1]),
        ],
        [value("co", TensorProto.BOOL, []), value("xo", FLOAT, ["N", 1])],
    )
    endless = helper.make_graph(
        [helper.make_node("Loop", ["n", "c", "h"], ["o2"], body=body)],
        "e",
        [],
        [value("o2", FLOAT, ["N", 1])],
    )
    return onnx_bytes(
        [
            helper.make_node("ReduceMax", ["x"], ["highest"], keepdims=0),
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Less", ["highest", "limit"], ["good"]),
            helper.make_node("If", ["good"], ["y"], then_branch=answers, else_branch=endless),
        ],
        [("x", FLOAT, ["N", width])],
        [("y", FLOAT, ["N", 1])],
        [
            ("n", np.array(2**62, np.int64)),
            ("c", np.array(True)),
            ("w", np.eye(width, 1, dtype=np.float32)),
            ("limit", np.array(limit, np.float32)),
        ],
    )
