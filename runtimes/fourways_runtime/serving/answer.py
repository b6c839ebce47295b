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

_OCTETS = b"application/octet-stream"


class Renderer:
    """Renders the answers of one model."""

    def __init__(self, name: str, version: str, contract: Contract) -> None:
        self._who = {"model_name": name, "model_version": version}
        self._outputs = {output.name: output for output in contract.outputs}

    def __call__(self, question: Question, part: Part) -> Response:
        """Return the answer: the outputs asked for, in the order they were asked for."""
        answer: dict[str, Any] = dict(self._who)
        if question.id is not None:
            answer["id"] = question.id
        asked = question.outputs
        if asked is None:
            asked = tuple((name, question.binary) for name in self._outputs)
        binary: list[bytes] = []
        answer["outputs"] = [
            self._tensor(self._outputs[name], question.rows, part, binary if as_binary else None)
            for name, as_binary in asked
        ]
        header = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        if not binary:
            return Response(header)
        length = b"inference-header-content-length: %d" % len(header)
        return Response(b"".join((header, *binary)), 200, _OCTETS, (length,))

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
