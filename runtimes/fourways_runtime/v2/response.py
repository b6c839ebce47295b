"""Renders a batch's output columns as the protocol's JSON or binary tensors."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract, OutputField
from fourways_http import Response
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.tensors import to_binary
from fourways_runtime.scoring.values import numpy_type

from .inference_response import OCTETS, InferenceResponse, OutputTensor
from .parts import ScoredPart
from .protocol import DATATYPES
from .request import InferenceRequest
from .templates import UnparsedRequest

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
MAX_ROWS_NAMED = 1000
"""Maximum bad rows described in a partial response; further ones are only counted."""


class _Data:
    """The data of one output, as JSON without brackets."""

    __slots__ = ("_size", "_textual", "name")

    def __init__(self, output: OutputField) -> None:
        self.name = output.name
        self._textual = output.type == "string"
        self._size = prod(output.shape)

    def of(self, part: ScoredPart) -> bytes:
        """Render a request's part. Numbers are converted once per batch, and the texts shared."""
        if self._textual:
            values = part.columns[self.name][part.start : part.stop]
            return orjson.dumps(values.reshape(-1).tolist())[1:-1]
        texts = part.texts.get(self.name)
        if texts is None:
            flat = part.columns[self.name].reshape(-1)
            texts = part.texts[self.name] = orjson.dumps(flat, option=_NUMPY)[1:-1].split(b",")
        start, stop = part.start * self._size, part.stop * self._size
        return texts[start] if stop - start == 1 else b",".join(texts[start:stop])


class Renderer:
    """Renders the responses of one model."""

    def __init__(self, name: str, version: str, contract: Contract) -> None:
        self._who = {"model_name": name, "model_version": version}
        self._outputs = {output.name: output for output in contract.outputs}
        self._data = [_Data(output) for output in contract.outputs]
        self.row_values = sum(output.elements for output in contract.outputs)
        """Number of values in one row's response; an estimate if an output has a free size."""

        self._fixed = not any(output.is_free for output in contract.outputs)

        self._numeric = all(output.type != "string" for output in contract.outputs)
        # Both are cached by the number of rows, which is bounded.
        self._frame, self._header = cache(self._frame_of), cache(self._header_of)

    def __call__(self, inference: UnparsedRequest | InferenceRequest, part: ScoredPart) -> Response:
        """Return the response, with the requested outputs in the requested order."""
        if isinstance(inference, UnparsedRequest):
            if not self._fixed:
                return self._whole(part)
            return Response(self._filled(inference.rows, part))
        if self._fixed and inference.asks_nothing_special:
            return Response(self._filled(inference.rows, part))
        if self._fixed and inference.is_all_binary and self._numeric:
            return self._in_binary(inference.rows, part)
        asked = inference.outputs
        if asked is None:
            asked = tuple((name, inference.binary) for name in self._outputs)
        rows = part.stop - part.start
        parameters: dict[str, Any] = {}
        if inference.features is not None:
            parameters["features"] = inference.features
        if inference.features_as_of is not None:
            bad = {at for at, _, _ in part.bad}
            times = enumerate(inference.features_as_of)
            as_of = [time for row, time in times if inference.position(row) not in bad]
            parameters["features_as_of"] = as_of
        if inference.partial:
            parameters |= _partial(inference, part)
        response = InferenceResponse(
            self._who["model_name"],
            self._who["model_version"],
            [self._tensor(self._outputs[name], rows, part, binary) for name, binary in asked],
            inference.id,
            parameters or None,
        )
        return response.response()

    def _filled(self, rows: int, part: ScoredPart) -> bytes:
        """Return all outputs as JSON, in the frame for so many rows."""
        pieces: list[bytes] = self._frame(rows).copy()
        at = 1
        for data in self._data:
            pieces[at] = data.of(part)
            at += 2
        return b"".join(pieces)

    def _whole(self, part: ScoredPart) -> Response:
        """Return all outputs as JSON."""
        rows = part.stop - part.start
        tensors = [self._tensor(each, rows, part, False) for each in self._outputs.values()]
        return InferenceResponse(
            self._who["model_name"], self._who["model_version"], tensors
        ).response()

    def _in_binary(self, rows: int, part: ScoredPart) -> Response:
        """Return all outputs as binary tensors of numbers; only their data is new."""
        header, length = self._header(rows)
        data = [
            to_binary(output.type, part.columns[name][part.start : part.stop])
            for name, output in self._outputs.items()
        ]
        return Response(header + b"".join(data), 200, OCTETS, length)

    def _header_of(self, rows: int) -> tuple[bytes, tuple[bytes]]:
        outputs = []
        for name, output in self._outputs.items():
            shape = [rows, *output.shape]
            size = prod(shape) * numpy_type(output.type).itemsize
            tensor = {"name": name, "datatype": DATATYPES[output.type], "shape": shape}
            outputs.append({**tensor, "parameters": {"binary_data_size": size}})
        header = orjson.dumps({**self._who, "outputs": outputs})
        return header, (b"inference-header-content-length: %d" % len(header),)

    def _frame_of(self, rows: int) -> list[bytes]:
        """Return a response for so many rows in pieces: each second one is an output's data."""
        pieces = [orjson.dumps(self._who)[:-1] + b',"outputs":[']
        for name, output in self._outputs.items():
            told = {
                "name": name,
                "datatype": DATATYPES[output.type],
                "shape": [rows, *output.shape],
            }
            comma = b"," if len(pieces) > 1 else b""
            pieces[-1] += comma + orjson.dumps(told)[:-1] + b',"data":['
            pieces += (b"", b"]}")
        pieces[-1] += b"]}"
        return pieces

    def _tensor(
        self, output: OutputField, rows: int, part: ScoredPart, binary: bool
    ) -> OutputTensor:
        values: Array = part.columns[output.name][part.start : part.stop]
        shape = output.shape
        if output.is_free:
            # A request has one size; those that were scored with it may have others.
            values = np.stack(list(values)) if values.ndim == 1 and rows else values
            shape = values.shape[1:] or tuple(map(abs, output.shape))
        flat = values.reshape(-1)
        return OutputTensor(output.name, output.type, (rows, *shape), flat, binary)


def _partial(inference: InferenceRequest, part: ScoredPart) -> dict[str, Any]:
    """Return which rows have predictions, and the errors of the first bad rows."""
    bad = {at for at, _, _ in part.bad}
    rows = part.stop - part.start + len(bad)
    return {
        "rows": [row for row in range(rows) if row not in bad],
        "bad_rows": len(part.bad),
        "errors": [inference.describe(one) for one in part.bad[:MAX_ROWS_NAMED]],
    }
