"""Checks that a UBJSON file is complete, because XGBoost's own reader does not.

On a truncated file, XGBoost takes whatever lies in memory for a length: it crashes, or allocates
until the kernel kills the process. The structure is therefore walked first, in the dialect XGBoost
writes: int64 lengths, and typed arrays with a count.
Source of the format: https://ubjson.org and xgboost's src/common/json.cc
"""

from __future__ import annotations

_SIZES = {"d": 4, "D": 8, "i": 1, "U": 1, "I": 2, "l": 4, "L": 8, "C": 1}
_BARE = frozenset("ZTF")
_MAX_DEPTH = 64


class Damaged(ValueError):
    """The bytes are not a complete UBJSON document."""


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def skip(self, size: int) -> None:
        if size < 0 or size > len(self._raw) - self.at:
            raise Damaged
        self.at += size

    def mark(self) -> str:
        self.skip(1)
        return chr(self._raw[self.at - 1])

    def peek(self) -> str:
        return chr(self._raw[self.at]) if self.at < len(self._raw) else ""

    def expect(self, mark: str) -> None:
        if self.mark() != mark:
            raise Damaged

    def length(self) -> int:
        self.expect("L")
        self.skip(8)
        return int.from_bytes(self._raw[self.at - 8 : self.at], "big", signed=True)

    def value(self, depth: int) -> None:
        mark = self.mark()
        if depth > _MAX_DEPTH:
            raise Damaged
        if mark == "{":
            self.object(depth)
        elif mark == "[":
            self.array(depth)
        elif mark == "S":
            self.skip(self.length())
        elif mark in _SIZES:
            self.skip(_SIZES[mark])
        elif mark not in _BARE:
            raise Damaged

    def object(self, depth: int) -> None:
        while self.peek() != "}":
            self.skip(self.length())
            self.value(depth + 1)
        self.skip(1)

    def array(self, depth: int) -> None:
        if self.peek() == "$":
            self.skip(1)
            kind = self.mark()
            self.expect("#")
            if kind not in _SIZES:
                raise Damaged
            self.skip(self.length() * _SIZES[kind])
        elif self.peek() == "#":
            self.skip(1)
            count = self.length()
            if count < 0:
                raise Damaged
            # Each value takes at least one byte, so a false count stops at the end of the file.
            for _ in range(count):
                self.value(depth + 1)
        else:
            while self.peek() != "]":
                self.value(depth + 1)
            self.skip(1)


def check(raw: bytes) -> None:
    """Raise Damaged unless ``raw`` is exactly one complete object."""
    reader = _Reader(raw)
    if reader.peek() != "{":
        raise Damaged
    reader.value(0)
    if reader.at != len(raw):
        raise Damaged
