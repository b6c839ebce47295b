"""Lists of JSON numbers as one array, whether or not simdjson is there to read them.

simdjson makes floats of JSON where they are to be; orjson makes an object of each first, which
``struct`` turns into floats then. Both say the same of the same text. Nothing but numbers is taken:
who finds something else asks elsewhere what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.dense import packer
from fourways_runtime.scoring.literals import EXACT, from_json

_MAX_BYTES = 2**20
"""simdjson's parser keeps the room that its largest text took, several times over."""


class Numbers:
    """Reads lists of numbers into floats of one type."""

    def __init__(self, kind: np.dtype[np.floating]) -> None:
        self._kind = kind
        self._exact = EXACT[kind.name]
        self._parser = _parser()

    def read(
        self, lists: Sequence[bytes], sizes: list[int], *, judged: bool = True
    ) -> Array | None:
        """Read the insides of JSON lists that hold no brackets: (sum of ``sizes``,).

        A number that the type has no room for may come as infinite, which no contract takes.
        Returns None where one of the lists holds anything but as many numbers as it should, or a
        whole number that the type would round. Not ``judged``: the caller looks for those, which
        costs nothing where values are compared with bounds anyway.
        """
        values = self._read(lists, sizes)
        if values is None or not judged:
            return values
        large = ~(np.abs(values) < self._exact)
        return None if large.any() and self._rounds(lists, large) else values

    def _rounds(self, lists: Sequence[bytes], large: Array) -> bool:
        """Tell whether one of the large numbers is a whole one that the type would round."""
        found = list(chain.from_iterable(orjson.loads(b"[[%b]]" % b"],[".join(lists))))
        some = (found[at] for at in np.flatnonzero(large).tolist())
        return any(type(n) is int and from_json(self._kind.name, n)[1] is not None for n in some)

    def _read(self, lists: Sequence[bytes], sizes: list[int]) -> Array | None:
        # No brackets are in what is joined, so each list is one of these, or nothing fits.
        text = b"],[".join(lists)
        if self._parser is not None and len(text) <= _MAX_BYTES:
            return self._directly(b"[[%b]]" % text, sizes)
        if b"t" in text or b"f" in text:
            return None  # true and false would pass for numbers
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
            # No number, or none it has room for; or another thread is at it.
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
