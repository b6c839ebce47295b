"""Answers: a batch's output columns as the protocol's JSON or binary tensors."""

from __future__ import annotations

from typing import Any

import orjson

from fourways_api import Contract, OutputField

from ..http import Response
from ..records import Array
from ..v2 import DATATYPES
from .question import Question
from .scoring import Part
from .tensors import to_binary

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_OCTETS = b"application/octet-stream"


class _Piece:
    """One output in JSON, all but its rows and its data."""

    __slots__ = ("_after", "_before", "_textual", "name")

    def __init__(self, output: OutputField) -> None:
        self.name = output.name
        self._textual = output.type == "string"
        told = {"name": output.name, "datatype": DATATYPES[output.type], "shape": []}
        self._before = orjson.dumps(told)[:-2]
        self._after = b"".join(b",%d" % size for size in output.shape) + b'],"data":'

    def written(self, rows: int, values: Array) -> bytes:
        """Write values (rows, *shape)."""
        flat = values.reshape(-1)
        data = orjson.dumps(flat.tolist() if self._textual else flat, option=_NUMPY)
        return b"%b%d%b%b}" % (self._before, rows, self._after, data)


class Renderer:
    """Renders the answers of one model."""

    def __init__(self, name: str, version: str, contract: Contract) -> None:
        self._who = {"model_name": name, "model_version": version}
        self._outputs = {output.name: output for output in contract.outputs}
        self._pieces = [_Piece(output) for output in contract.outputs]
        self._head = orjson.dumps(self._who)[:-1] + b',"outputs":['

    def __call__(self, question: Question, part: Part) -> Response:
        """Return the answer: the outputs asked for, in the order they were asked for."""
        if _asks_nothing_special(question):
            return self._plainest(question.rows, part)
        answer: dict[str, Any] = dict(self._who)
        if question.id is not None:
            answer["id"] = question.id
        if question.features is not None:
            answer["parameters"] = {"features": question.features}
        asked = question.outputs
        if asked is None:
            asked = tuple((name, question.binary) for name in self._outputs)
        binary: list[bytes] = []
        answer["outputs"] = [
            self._tensor(self._outputs[name], question.rows, part, binary if as_binary else None)
            for name, as_binary in asked
        ]
        header = orjson.dumps(answer, option=_NUMPY)
        if not binary:
            return Response(header)
        length = b"inference-header-content-length: %d" % len(header)
        return Response(b"".join((header, *binary)), 200, _OCTETS, (length,))

    def _plainest(self, rows: int, part: Part) -> Response:
        """Return all outputs as JSON, for who asked for nothing in particular."""
        written = [
            piece.written(rows, part.columns[piece.name][part.start : part.stop])
            for piece in self._pieces
        ]
        return Response(b"%b%b]}" % (self._head, b",".join(written)))

    def _tensor(
        self, output: OutputField, rows: int, part: Part, binary: list[bytes] | None
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


def _asks_nothing_special(question: Question) -> bool:
    return (
        question.id is None
        and question.outputs is None
        and question.features is None
        and not question.binary
    )
