"""Parses lists of JSON numbers into one array, with or without simdjson.

simdjson parses JSON directly into floats. Without it, orjson creates a Python object for each
number and ``struct`` packs these as floats. Both give the same result for the same text. Only
numbers are accepted; for anything else the caller falls back to the ordinary parser.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.dense import packer
from fourways_runtime.scoring.literals import EXACT, from_json

_MAX_BYTES = 2**20
"""Maximum text for simdjson, whose parser keeps several times the memory of its largest text."""


class Numbers:
    """Reads lists of numbers into floats of one type."""

    def __init__(self, kind: np.dtype[np.floating]) -> None:
        self._kind = kind
        self._exact = EXACT[kind.name]
        self._parser = _parser()

    def read(
        self, lists: Sequence[bytes], sizes: list[int], *, judged: bool = True
    ) -> Array | None:
        """Read the contents of JSON lists that hold no brackets: (sum of ``sizes``,).

        A number too large for the type may become infinite, which every contract rejects. Returns
        None if one of the lists does not hold exactly the expected count of numbers, or if it
        holds a whole number that the type would round. Without ``judged`` the caller has to check
        for the latter, which costs nothing where values are compared with bounds anyway.
        """
        values = self._read(lists, sizes)
        if values is None or not judged:
            return values
        large = ~(np.abs(values) < self._exact)
        return None if large.any() and self._rounds(lists, large) else values

    def _rounds(self, lists: Sequence[bytes], large: Array) -> bool:
        """Return whether one of the large numbers is a whole number that the type would round."""
        found = list(chain.from_iterable(exact_json.loads(b"[[%b]]" % b"],[".join(lists))))
        some = (found[at] for at in np.flatnonzero(large).tolist())
        return any(type(n) is int and from_json(self._kind.name, n)[1] is not None for n in some)

    def _read(self, lists: Sequence[bytes], sizes: list[int]) -> Array | None:
        # The joined texts hold no brackets, so each list stays one list, or parsing fails.
        text = b"],[".join(lists)
        if self._parser is not None and len(text) <= _MAX_BYTES:
            return self._directly(b"[[%b]]" % text, sizes)
        if b"t" in text or b"f" in text:
            return None  # true and false would be packed as numbers
        try:
            found = orjson.loads(b"[[%b]]" % text)
            packed = [
                packer(size, self._kind.char)(*values)
                for values, size in zip(found, sizes, strict=True)
            ]
        except (ValueError, struct.error, OverflowError):
            return None
        return np.frombuffer(packed[0] if len(packed) == 1 else b"".join(packed), self._kind)

    def _directly(self, text: bytes, sizes: list[int]) -> Array | None:
        try:
            found = self._parser.parse(text)
            if list(map(len, found)) != sizes:
                return None
            values = np.frombuffer(found.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):
            # Not a number, or one too large for simdjson; or another thread is using the parser.
            return None
        if values.dtype == self._kind:
            return values
        with np.errstate(over="ignore"):
            return values.astype(self._kind)


def _parser() -> Any:
    try:
        import simdjson
    except ImportError:  # no wheel for this interpreter
        return None
    return simdjson.Parser()
