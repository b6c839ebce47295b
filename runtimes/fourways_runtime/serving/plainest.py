"""Requests of which only the numbers are new: all inputs in one JSON tensor, nothing asked for.

A client's bodies are alike but for their numbers. What is around the numbers, the envelope, was
read and judged when it first came; where the same bytes come again, it need not be read again. So
such a request waits for its batch unread, and the numbers of the whole batch are parsed together.
What is not plainly good is read by who reads any request, and told in those words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import orjson

from ..http import Request
from ..records import Array
from ..v2 import DATATYPES
from .question import BINARY_HEADER, Question, Reader

_MOST = 256
"""Envelopes kept."""

_MAX_BYTES = 1024
"""Longer envelopes are not kept."""

_NUMBER_BYTES = 32
"""Text a number may take on average: what waits unread must not be large."""


class Plain:
    """A request understood but for its numbers: ``rows`` records."""

    __slots__ = ("envelopes", "numbers", "request", "rows")

    missing: tuple[str, ...] = ()

    def __init__(self, envelopes: Envelopes, request: Request, rows: int, numbers: bytes) -> None:
        self.envelopes = envelopes
        self.request = request
        self.rows = rows
        self.numbers = numbers

    def question(self) -> Question:
        """Read it. Raises HttpError 400 where a number is none."""
        block = self.envelopes.block([self])
        if block is None:
            return self.envelopes.read(self.request)
        return Question(self.rows, None, None, False, None, block, {})


class Envelopes:
    """Takes the requests of one model, with the envelopes met lately."""

    def __init__(self, reader: Reader) -> None:
        """``reader`` reads what is not plain."""
        self.read = reader.read
        self._width = reader.width
        # Numbers are packed in the type the model is given: one of these, or nothing is plain.
        self._type = np.dtype(reader.floats or np.float64).newbyteorder("<")
        self._datatype = DATATYPES[reader.floats] if reader.floats else None
        self._known: dict[bytes, int] = {}
        code, width = self._type.char, self._width

        @cache
        def packer(rows: int) -> Callable[..., bytes]:
            return struct.Struct(f"<{rows * width}{code}").pack

        self._packer = packer

    def take(self, request: Request) -> Plain | Question:
        """Take a request, read or unread. Raises HttpError 400 or 415, naming the field."""
        if self._datatype is None or request.header(BINARY_HEADER) is not None:
            return self.read(request)
        body = request.body
        start = body.rfind(b"[") + 1
        stop = body.find(b"]", start)
        if stop < 0 or start + len(body) - stop > _MAX_BYTES:
            return self.read(request)
        envelope = body[:start] + body[stop:]
        rows = self._known.get(envelope)
        if rows is None:
            question = self.read(request)
            self._learn(envelope, question)
            return question
        if stop - start > rows * self._width * _NUMBER_BYTES:
            return self.read(request)
        return Plain(self, request, rows, body[start:stop])

    def _learn(self, envelope: bytes, question: Question) -> None:
        """Remember the envelope of a request that was read, where it is a plain one.

        The list left out of it must be the data, all of it: in the envelope the data is empty.
        """
        if question.block is None or question.keys is not None or not question.asks_nothing_special:
            return
        try:
            (tensor,) = orjson.loads(envelope)["inputs"]
        except orjson.JSONDecodeError:
            return
        if tensor["data"] not in ([], [[]]) or tensor["datatype"] != self._datatype:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[envelope] = question.rows

    def block(self, asked: Sequence[Plain]) -> Array | None:
        """Parse requests together as one block (all rows, inputs).

        Returns None where one of them holds anything but as many numbers as it should.
        """
        # No brackets are in what is joined, so each list is one request's, or nothing fits.
        text = b"],[".join([plain.numbers for plain in asked])
        if b"t" in text or b"f" in text:
            return None  # true and false would pass for numbers
        packer = self._packer
        try:
            lists = orjson.loads(b"[[%b]]" % text)
            packed = [
                packer(plain.rows)(*values) for plain, values in zip(asked, lists, strict=True)
            ]
        except (ValueError, struct.error, OverflowError):
            return None
        raw = packed[0] if len(packed) == 1 else b"".join(packed)
        rows = len(raw) // (self._width * self._type.itemsize)
        return np.ndarray((rows, self._width), self._type, raw)
