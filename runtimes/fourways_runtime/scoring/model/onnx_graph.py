"""Reads what an ONNX file refers to, before onnxruntime opens it.

The relevant fields (external weights, operators, opsets) are declared to protobuf, which
onnxruntime needs anyway, by their numbers in onnx.proto; everything else is skipped as unknown. The
file is thus parsed by the same library and rules as in onnxruntime, and the onnx package with its
compiled checker stays out of the image.
Source of the numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import message

from fourways_runtime.errors import ModelNotLoadable

from .protobuf_schema import Schema, message_class

_SCHEMA: Schema = {
    "Model": {
        "ir_version": (1, "int64"),
        "graph": (7, "Graph"),
        "opset_import": (8, "*OperatorSet"),
        "training_info": (20, "*Training"),
        "functions": (25, "*Function"),
    },
    "OperatorSet": {"domain": (1, "bytes"), "version": (2, "int64")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {
        "node": (7, "*Node"),
        "domain": (10, "bytes"),
        "attribute_proto": (11, "*Attribute"),
    },
    "Graph": {
        "node": (1, "*Node"),
        "initializer": (5, "*Tensor"),
        "input": (11, "*Value"),
        "sparse_initializer": (15, "*SparseTensor"),
    },
    "Value": {"name": (1, "bytes"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, "int64")},
    "Node": {"op_type": (4, "bytes"), "attribute": (5, "*Attribute"), "domain": (7, "bytes")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "*Tensor"),
        "graphs": (11, "*Graph"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "*SparseTensor"),
    },
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external_data": (13, "*Entry"), "data_location": (14, "int64")},
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
}
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# An operator that stands for a file of an accelerator, given by its path.
_FOREIGN_OPERATORS = frozenset({"EPContext"})


@dataclass(slots=True)
class Summary:
    """What a model refers to beyond its own bytes."""

    opset: int = 0
    """Version of the standard operators that it uses."""

    scalars: set[str] = field(default_factory=set)
    """Names of the inputs that are declared without dimensions."""

    external: set[str] = field(default_factory=set)
    """Paths of external weight files, as written in the model."""


@cache
def _model_class() -> type[Any]:
    return message_class("fourways.onnx", _SCHEMA)


def summarise(raw: bytes) -> Summary:
    """Read what a model refers to. Raises ModelNotLoadable if it is not ONNX or not allowed."""
    model = _model_class()()
    try:
        model.ParseFromString(raw)
    except message.DecodeError:
        raise ModelNotLoadable("the file is not ONNX, or it is truncated") from None
    if not model.HasField("graph") or not model.opset_import:
        raise ModelNotLoadable("the file is not an ONNX model: it has no graph and opset")
    own = {function.domain.decode("utf-8", "replace") for function in model.functions}
    summary = Summary()
    for opset in model.opset_import:
        if opset.domain in (b"", b"ai.onnx"):
            summary.opset = max(summary.opset, opset.version)
    summary.scalars = set(_scalars(model.graph))
    for found in _walk(model):
        kind = found.DESCRIPTOR.name
        if kind == "Node":
            _check_operator(found, own)
        elif kind == "Tensor" and (found.data_location or found.external_data):
            summary.external.add(_location(found))
    return summary


def _scalars(graph: Any) -> Iterator[str]:
    for given in graph.input:
        tensor = given.type.tensor_type
        if tensor.HasField("shape") and not tensor.shape.dim:
            yield given.name.decode("utf-8", "replace")


def _walk(root: Any) -> Iterator[Any]:
    """Yield every node and tensor, at any depth. protobuf bounds the depth to 100."""
    waiting = [root]
    while waiting:
        found = waiting.pop()
        yield found
        for described, value in found.ListFields():
            if described.message_type is not None and described.name != "external_data":
                waiting.extend([value] if isinstance(value, message.Message) else value)


def _check_operator(node: Any, own: set[str]) -> None:
    operator = node.op_type.decode("utf-8", "replace")
    domain = node.domain.decode("utf-8", "replace")
    if operator in _FOREIGN_OPERATORS or domain not in _DOMAINS | own:
        raise ModelNotLoadable(
            f"the model uses the custom operator {domain[:64]}:{operator[:64]};"
            " export it with standard ONNX operators"
        )


def _location(tensor: Any) -> str:
    # If a key is repeated, onnxruntime uses the last one.
    entries = {bytes(entry.key): bytes(entry.value) for entry in tensor.external_data}
    try:
        return entries[b"location"].decode()
    except (KeyError, UnicodeDecodeError):
        raise ModelNotLoadable("the model keeps weights in a file it does not name") from None
