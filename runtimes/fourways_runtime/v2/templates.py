"""Fast path for requests that differ from an earlier one only in their numbers.

A client's bodies are usually alike except for their numbers. The text around the numbers, the
envelope, is parsed and checked when it first arrives; when the same bytes arrive again, that is
skipped. Such a request waits for its batch unparsed, and the numbers of the whole batch are parsed
together. Anything irregular falls back to the ordinary parser, with its error messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import orjson

from fourways_http import Request
from fourways_runtime.scoring import tensors
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.literals import EXACT

from .body import BINARY_HEADER
from .numbers import Numbers
from .protocol import DATATYPES
from .request import InferenceRequest, RequestReader

_MOST = 256
"""Maximum number of templates kept."""

_MAX_BYTES: Final = 1024
"""Maximum size of a template; longer ones are not kept."""

_MAX_BYTES_EACH: Final = 16 * 1024
"""The same, if each input has a tensor of its own."""

_MAX_DIGITS = 3
"""The same for the JSON before binary tensors, as the number of digits of its length."""

_DATA = b'"data"'
_LISTS = re.compile(rb'"data"\s*:\s*\[([^\[\]]*)\]')

_NUMBER_BYTES: Final = 32
"""Maximum average text of a number, because the memory of waiting unparsed requests must be
limited."""


class UnparsedRequest:
    """A request that is parsed except for its numbers: ``rows`` records."""

    __slots__ = ("numbers", "request", "rows", "templates")

    missing: tuple[str, ...] = ()

    def __init__(
        self, templates: RequestTemplates, request: Request, rows: int, numbers: bytes
    ) -> None:
        self.templates = templates
        self.request = request
        self.rows = rows
        self.numbers = numbers

    def parsed(self) -> InferenceRequest:
        """Parse it. Raises HttpError 400 if one of the numbers is not a number."""
        block = self.templates.block([self])
        # A larger whole number might be one that the type rounds; only its text shows that.
        if block is None or not np.abs(block).max() < self.templates.exact_limit:
            return self.templates.read(self.request)
        return InferenceRequest(self.rows, None, None, False, None, block, {})


class RequestTemplates:
    """Takes the requests of one model, using the templates of recent requests."""

    def __init__(self, reader: RequestReader) -> None:
        """``reader`` is the ordinary parser for requests that match no template."""
        self.read = reader.read
        self._width = reader.width
        # Numbers are packed in the model's input type: one of these, or no template is used.
        self._type = np.dtype(reader.floats or np.float64).newbyteorder("<")
        self._datatype = DATATYPES[reader.floats] if reader.floats else None
        self._names = reader.names
        self._known: dict[bytes, int] = {}  # number of rows
        self._known_each: dict[bytes, tuple[int, ...]] = {}  # position of each input's number
        self._known_binary: dict[bytes, InferenceRequest] = {}  # everything except the numbers
        self._numbers = Numbers(self._type)
        self.exact_limit = EXACT[self._type.name]

    def take(self, request: Request) -> UnparsedRequest | InferenceRequest:
        """Take a request, parsed or not. Raises HttpError 400 or 415, naming the field."""
        if self._datatype is None:
            return self.read(request)
        length = request.header(BINARY_HEADER)
        if length is not None:
            return self._binary(request, length)
        body = request.body
        start = body.rfind(b"[") + 1
        stop = body.find(b"]", start)
        if stop < 0:
            return self.read(request)
        if start + len(body) - stop > _MAX_BYTES:
            return self._tensor_each(request)
        envelope = body[:start] + body[stop:]
        rows = self._known.get(envelope)
        if rows is None:
            if envelope.find(_DATA) != envelope.rfind(_DATA):
                return self._tensor_each(request)
            inference = self.read(request)
            if inference.rows and inference.block is not None and inference.is_plain:
                self._learn(envelope, inference.rows)
            return inference
        if stop - start > rows * self._width * _NUMBER_BYTES:
            return self.read(request)
        return UnparsedRequest(self, request, rows, body[start:stop])

    def _learn(self, envelope: bytes, rows: int) -> None:
        """Remember the envelope of a plain request that was parsed.

        The list cut out of the envelope must be all of the data: in the envelope, data is empty.
        """
        given = self._emptied(envelope)
        if len(given) == 1 and given[0]["data"] in ([], [[]]):
            _remember(self._known, envelope, rows)

    def _emptied(self, envelope: bytes) -> list[Any]:
        """Return an envelope's tensors; empty if any of them has another type."""
        try:
            given: list[Any] = orjson.loads(envelope)["inputs"]
        except orjson.JSONDecodeError:
            return []  # what looked like a list was part of a string
        return given if all(t.get("datatype") == self._datatype for t in given) else []

    def _tensor_each(self, request: Request) -> UnparsedRequest | InferenceRequest:
        """Take a request for one record with a tensor for each input."""
        body, width = request.body, self._width
        if len(body) > _MAX_BYTES_EACH + width * _NUMBER_BYTES:
            return self.read(request)
        # Alternately the text around the lists and the contents of the lists.
        parts = _LISTS.split(body)
        envelope = b'"data":[]'.join(parts[::2])
        order = self._known_each.get(envelope)
        if order is not None:
            return UnparsedRequest(self, request, 1, b",".join([parts[at] for at in order]))
        inference = self.read(request)
        if inference.rows == 1 and len(inference.columns) == width and inference.is_plain:
            self._learn_each(envelope, len(parts) // 2)
        return inference

    def _learn_each(self, envelope: bytes, lists: int) -> None:
        given = self._emptied(envelope)
        if lists == len(given) == self._width and all(tensor["data"] == [] for tensor in given):
            names = [tensor["name"] for tensor in given]
            order = tuple(2 * names.index(name) + 1 for name in self._names)
            _remember(self._known_each, envelope, order)

    def _binary(self, request: Request, length: bytes) -> InferenceRequest:
        """Take a binary request: if its JSON is known, only the numbers are parsed."""
        body = request.body
        if not length.isdigit() or len(length) > _MAX_DIGITS:
            return self.read(request)
        end = int(length)
        header = body[:end]
        known = self._known_binary.get(header)
        if known is None:
            inference = self.read(request)
            if inference.rows and inference.block is not None:
                self._learn_binary(header, inference)
            return inference
        rows = known.rows
        if len(body) - end != rows * self._width * self._type.itemsize:
            return self.read(request)
        data = memoryview(body)[end:]
        values, _ = tensors.from_binary(self._type.name, data, rows * self._width)
        block = values.reshape(rows, self._width)
        return InferenceRequest(
            rows,
            known.id,
            known.outputs,
            known.binary,
            known.keys,
            block,
            {},
            partial=known.partial,
        )

    def _learn_binary(self, header: bytes, inference: InferenceRequest) -> None:
        given = self._emptied(header)
        if len(given) == 1 and "data" not in given[0]:
            _remember(self._known_binary, header, replace(inference, block=None))

    def block(self, asked: Sequence[UnparsedRequest]) -> Array | None:
        """Parse requests together as one block (all rows, inputs).

        Returns None if one of them does not hold exactly the expected count of numbers. A number
        too large for the type may become infinite.
        """
        width = self._width
        lists, sizes = [plain.numbers for plain in asked], [p.rows * width for p in asked]
        # If a number is so large that it may have been rounded, the dense batch leaves the request
        # to UnparsedRequest.parsed, which checks the text.
        values = self._numbers.read(lists, sizes, judged=False)
        return None if values is None else values.reshape(-1, width)


def _remember(known: dict[bytes, Any], envelope: bytes, what: Any) -> None:
    if len(known) >= _MOST:
        known.clear()
    known[envelope] = what
