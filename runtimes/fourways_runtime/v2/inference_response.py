"""An inference response: output tensors as the protocol's JSON, or as binary data after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from fourways_http import Response
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.tensors import to_binary
from fourways_runtime.scoring.values import numpy_type

from .protocol import DATATYPES

OCTETS = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output: ``values`` are flat, in row-major order; ``kind`` is their contract type."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Starts with the number of rows."""

    values: Array | list[Any]
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """The response to an inference request."""

    model_name: str
    model_version: str
    outputs: Sequence[OutputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None

    def response(self, headers: tuple[bytes, ...] = ()) -> Response:
        """Render it; ``headers`` are whole header lines without line ends."""
        document: dict[str, Any] = {
            "model_name": self.model_name,
            "model_version": self.model_version,
        }
        if self.id is not None:
            document["id"] = self.id
        if self.parameters is not None:
            document["parameters"] = self.parameters
        binary: list[bytes] = []
        document["outputs"] = [_written(output, binary) for output in self.outputs]
        header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        if not binary:
            return Response(header, headers=headers)
        length = b"inference-header-content-length: %d" % len(header)
        return Response(b"".join((header, *binary)), 200, OCTETS, (length, *headers))


def _written(output: OutputTensor, binary: list[bytes]) -> dict[str, Any]:
    values = output.values
    tensor: dict[str, Any] = {
        "name": output.name,
        "datatype": DATATYPES[output.kind],
        "shape": list(output.shape),
    }
    if output.binary:
        array = values if isinstance(values, np.ndarray) else _array(output.kind, values)
        binary.append(to_binary(output.kind, array))
        tensor["parameters"] = {"binary_data_size": len(binary[-1])}
    elif isinstance(values, np.ndarray) and values.dtype != object:
        tensor["data"] = np.ascontiguousarray(values)
    else:
        tensor["data"] = values if isinstance(values, list) else values.tolist()
    return tensor


def _array(kind: str, values: list[Any]) -> Array:
    array = np.empty(len(values), numpy_type(kind))
    array[:] = values
    return array
