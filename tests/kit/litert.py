"""Small LiteRT models, packed with the schema that the library ships: no TensorFlow is needed.

Source of the format: https://github.com/google-ai-edge/LiteRT, ``tflite/schema/schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT, INT32, STRING = 0, 2, 5
WEIGHTS = np.array([[0.5, -2.0, 0.125]], np.float32)


def dense(*, batch: int | None = None, signature: bool = True) -> bytes:
    """y = x · WEIGHTS + 1, of shapes (batch, 3) and (batch, 1); None is a batch of any size."""
    width = WEIGHTS.shape[1]
    tensors = [
        _tensor("serving_default_x:0", [batch, width]),
        _tensor("weights", [1, width], buffer=1),
        _tensor("bias", [1], buffer=2),
        _tensor("StatefulPartitionedCall:0", [batch, 1]),
    ]
    options = (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT())
    operator = schema.BuiltinOperator.FULLY_CONNECTED
    made = _model(tensors, operator, [0, 1, 2], [3], options, [WEIGHTS, np.ones(1, np.float32)])
    made.subgraphs[0].inputs = [0]
    if signature:
        made.signatureDefs = [_signature({"x": 0}, {"y": 3})]
    return _packed(made)


def identity(kind: int) -> bytes:
    """y = x for a type of the schema, by an operator that copies."""
    tensors = [_tensor("x", [None, 2], kind=kind), _tensor("y", [None, 2], kind=kind)]
    options = (schema.BuiltinOptions.NONE, None)
    return _packed(_model(tensors, schema.BuiltinOperator.RELU, [0], [1], options))


def custom() -> bytes:
    """A model with an operator that LiteRT does not have."""
    made = _model(
        [_tensor("x", [1, 2]), _tensor("y", [1, 2])],
        schema.BuiltinOperator.CUSTOM,
        [0],
        [1],
        (schema.BuiltinOptions.NONE, None),
    )
    made.operatorCodes[0].customCode = "FlexErf"
    return _packed(made)


def _model(
    tensors: list[Any],
    operator: int,
    inputs: list[int],
    outputs: list[int],
    options: tuple[int, Any],
    constants: Sequence[Any] = (),
) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, min(operator, 127), 1
    step = schema.OperatorT()
    step.opcodeIndex, step.inputs, step.outputs = 0, inputs, outputs
    step.builtinOptionsType, step.builtinOptions = options
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [step]
    graph.inputs, graph.outputs = inputs, outputs
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    # The first buffer is the empty one of tensors without constants.
    model.buffers = [schema.BufferT(), *map(_buffer, constants)]
    return model


def _tensor(name: str, shape: list[int | None], *, buffer: int = 0, kind: int = FLOAT) -> Any:
    made = schema.TensorT()
    made.name, made.type, made.buffer = name, kind, buffer
    made.shape = [size or 1 for size in shape]
    made.shapeSignature = [size or -1 for size in shape]
    return made


def _buffer(values: Any) -> Any:
    made = schema.BufferT()
    made.data = np.frombuffer(values.tobytes(), np.uint8)
    return made


def _signature(inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    made.inputs, made.outputs = _mapped(inputs), _mapped(outputs)
    return made


def _mapped(names: dict[str, int]) -> list[Any]:
    found = []
    for name, index in names.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name, index
        found.append(one)
    return found


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
