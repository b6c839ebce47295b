"""Makes the probabilities of an ONNX classifier a tensor, where the exporter wrapped them in maps.

``ZipMap`` turns a tensor of probabilities into one map per row. CatBoost exports no other form, and
skl2onnx does so by default. The operator is replaced in memory: the file, and so its digest, stays
as it is.
Source of the numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .protobuf_schema import Schema, message_class

_SCHEMA: Schema = {
    "Model": {"graph": (7, "Graph"), "opset_import": (8, "*OperatorSet")},
    "OperatorSet": {"domain": (1, "bytes"), "version": (2, "int64")},
    "Graph": {"node": (1, "*Node"), "output": (12, "*Value")},
    "Node": {
        "input": (1, "*bytes"),
        "output": (2, "*bytes"),
        "op_type": (4, "bytes"),
        "attribute": (5, "*Attribute"),
        "domain": (7, "bytes"),
    },
    "Attribute": {"name": (1, "bytes"), "ints": (8, "*int64"), "strings": (9, "*bytes")},
    "Value": {"name": (1, "bytes"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int64"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, "int64"), "dim_param": (2, "bytes")},
}
_FLOAT = 1
_STANDARD = (b"", b"ai.onnx")
_OPSET = 9
"""Version of the standard operators for a file that uses none of them."""


@cache
def _model_class() -> type[Any]:
    return message_class("fourways.onnx_zipmap", _SCHEMA)


def with_tensors_for_maps(raw: bytes) -> bytes:
    """Return an ONNX file whose outputs are tensors (N, classes) where a ``ZipMap`` made maps.

    The columns are in the order of the operator's class labels. A file without such an output is
    returned as it is. ``raw`` is a file that :func:`.onnx_graph.summarise` has accepted.
    """
    if b"ZipMap" not in raw:
        return raw
    model = _model_class()()
    model.ParseFromString(raw)
    outputs = {value.name: value for value in model.graph.output}
    changed = False
    for node in model.graph.node:
        if node.op_type != b"ZipMap" or len(node.output) != 1 or node.output[0] not in outputs:
            continue
        labels = max((len(each.ints) + len(each.strings) for each in node.attribute), default=0)
        _make_tensor(outputs[node.output[0]], labels)
        node.op_type, node.domain = b"Identity", b""
        node.ClearField("attribute")
        changed = True
    if not changed:
        return raw
    if not any(opset.domain in _STANDARD for opset in model.opset_import):
        model.opset_import.add(domain=b"", version=_OPSET)
    # Fields that the table above does not name are kept by protobuf.
    return bytes(model.SerializeToString())


def _make_tensor(value: Any, labels: int) -> None:
    value.ClearField("type")
    value.type.tensor_type.elem_type = _FLOAT
    dimensions = value.type.tensor_type.shape.dim
    dimensions.add(dim_param=b"N")
    dimensions.add(dim_value=labels)
