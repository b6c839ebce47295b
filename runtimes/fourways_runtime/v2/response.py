"""Answers: a batch's output columns as the protocol's JSON or binary tensors."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import orjson

from fourways_api import Contract, OutputField
from fourways_http import Response
from fourways_runtime.scoring.cells import numpy_type
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.tensors import to_binary

from .protocol import DATATYPES
from .request import InferenceRequest
from .scorer import ScoredPart
from .templates import UnparsedRequest

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_OCTETS = b"application/octet-stream"


class _Data:
    """The data of one output, as JSON without brackets."""

    __slots__ = ("_size", "_textual", "name")

    def __init__(self, output: OutputField) -> None:
        self.name = output.name
        self._textual = output.type == "string"
        self._size = prod(output.shape)

    def of(self, part: ScoredPart) -> bytes:
        """Write a request's part. Numbers are written once for the batch, and then shared out."""
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
    """Renders the answers of one model."""

    def __init__(self, name: str, version: str, contract: Contract) -> None:
        self._who = {"model_name": name, "model_version": version}
        self._outputs = {output.name: output for output in contract.outputs}
        self._data = [_Data(output) for output in contract.outputs]
        self._numeric = all(output.type != "string" for output in contract.outputs)
        # Both by the number of rows, which is bounded.
        self._frame, self._header = cache(self._frame_of), cache(self._header_of)

    def __call__(self, inference: UnparsedRequest | InferenceRequest, part: ScoredPart) -> Response:
        """Return the answer: the outputs asked for, in the order they were asked for."""
        if isinstance(inference, UnparsedRequest) or inference.asks_nothing_special:
            frame = self._frame(inference.rows)
            return Response(frame % tuple([data.of(part) for data in self._data]))
        if inference.is_all_binary and self._numeric:
            return self._in_binary(inference.rows, part)
        answer: dict[str, Any] = dict(self._who)
        if inference.id is not None:
            answer["id"] = inference.id
        if inference.features is not None:
            answer["parameters"] = {"features": inference.features}
        asked = inference.outputs
        if asked is None:
            asked = tuple((name, inference.binary) for name in self._outputs)
        binary: list[bytes] = []
        answer["outputs"] = [
            self._tensor(self._outputs[name], inference.rows, part, binary if as_binary else None)
            for name, as_binary in asked
        ]
        header = orjson.dumps(answer, option=_NUMPY)
        if not binary:
            return Response(header)
        length = b"inference-header-content-length: %d" % len(header)
        return Response(b"".join((header, *binary)), 200, _OCTETS, (length,))

    def _in_binary(self, rows: int, part: ScoredPart) -> Response:
        """Return all outputs as binary tensors of numbers: what is said of them is known."""
        header, length = self._header(rows)
        data = [
            to_binary(output.type, part.columns[name][part.start : part.stop])
            for name, output in self._outputs.items()
        ]
        return Response(header + b"".join(data), 200, _OCTETS, length)

    def _header_of(self, rows: int) -> tuple[bytes, tuple[bytes]]:
        outputs = []
        for name, output in self._outputs.items():
            shape = [rows, *output.shape]
            size = prod(shape) * numpy_type(output.type).itemsize
            told = {"name": name, "datatype": DATATYPES[output.type], "shape": shape}
            outputs.append({**told, "parameters": {"binary_data_size": size}})
        header = orjson.dumps({**self._who, "outputs": outputs})
        return header, (b"inference-header-content-length: %d" % len(header),)

    def _frame_of(self, rows: int) -> bytes:
        """Return all of an answer of so many rows but each output's data, a ``%b``."""
        outputs = [
            {"name": name, "datatype": DATATYPES[output.type], "shape": [rows, *output.shape]}
            for name, output in self._outputs.items()
        ]
        heads = [orjson.dumps(output)[:-1].replace(b"%", b"%%") for output in outputs]
        written = b",".join(head + b',"data":[%b]}' for head in heads)
        who = orjson.dumps(self._who)[:-1].replace(b"%", b"%%")
        return b"".join((who, b',"outputs":[', written, b"]}"))

    def _tensor(
        self, output: OutputField, rows: int, part: ScoredPart, binary: list[bytes] | None
    ) -> dict[str, Any]:
        values: Array = part.columns[output.name][part.start : part.stop].reshape(-1)
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": DATATYPES[output.type],
            "shape": [rows, *output.shape],
        }
        if binary is not None:
            binary.append(to_binary(output.type, values))
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            tensor["data"] = values.tolist() if output.type == "string" else values
        return tensor
