"""Parses large JSON in slices, so that other threads can run between two of them.

orjson holds the interpreter lock for the whole of a text: 16 MiB of numbers stop every other thread
for a third of a second. Here the text is cut at commas outside strings, about every 64 KiB. Each
slice is completed to a JSON text of its own: in front of it the containers that are open there are
opened anew, behind it those that are still open are closed. A marker stands in for the element
before and after the cut, because a comma needs both. The parsed slices are then joined.

The result is that of the parser of a whole text, and so is the error: each slice is the original
text, read in the original order, so the first error is found at the same character.
"""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import orjson

Parser: TypeAlias = Callable[[bytes], Any]

SLICE = 64 * 1024
"""Bytes of text that are parsed at a time."""

MAX_CONTAINERS = 250_000
"""Lists and objects of a text; each takes up to 40 times as much memory as its text."""

_RELEASED = 16_384
"""Elements that are released at a time."""

_SMALL = 16
"""Elements of a list that is released as a whole."""

_CONTAINERS = frozenset({list, dict})

_BEFORE, _AFTER = f"before-{secrets.token_hex(8)}", f"after-{secrets.token_hex(8)}"
_OPEN = {"[": b"[", "{": b'{"%b":' % _BEFORE.encode()}
_FIRST = {"[": b'["%b",' % _BEFORE.encode(), "{": b'{"%b":0,' % _BEFORE.encode()}
_LAST = {"[": b',"%b"' % _AFTER.encode(), "{": b',"%b":0' % _AFTER.encode()}
_CLOSE = {"[": b"]", "{": b"}"}
_BRACKETS = (b"[", b"]", b"{", b"}")


class TooManyContainers(Exception):
    """A text has more than :data:`MAX_CONTAINERS` lists and objects."""


def loads(text: bytes, parse: Parser = orjson.loads) -> Any:
    """Return what ``parse`` returns. Raises orjson.JSONDecodeError as it does.

    Raises TooManyContainers as well, before most of the text is parsed.
    """
    if len(text) <= SLICE or not _is_utf8(text):
        return parse(text)
    path: list[Any] = []  # the open containers, outermost first
    try:
        return _joined(text, path, parse)
    except (orjson.JSONDecodeError, TooManyContainers):
        release(path[:1])
        raise


def _joined(text: bytes, path: list[Any], parse: Parser) -> Any:
    """Parse the slices one by one; ``path`` then has the containers open at the last one."""
    cuts = _Cuts(text)
    root: Any = None
    start, kinds = 0, ""  # ``kinds`` has a bracket for each open container
    while True:
        cut = cuts.next()
        end, kept, after = (len(text), 0, "") if cut is None else cut
        value = _parsed(text, start, end, kinds, after, cut is None, parse)
        if not path:
            root = value
        if cut is None:
            _join(value, path)
            return root
        opened = _opened(value, len(kinds), kept, after[kept:])
        _join(value, path)
        path[kept:] = opened
        start, kinds = end + 1, after


def release(value: Any) -> None:
    """Empty a parsed value's large lists and objects bit by bit.

    To free millions of numbers at once would hold the interpreter lock for as long. Small ones are
    freed together, without what they contain.
    """
    left = [value] if type(value) in _CONTAINERS else []
    while left:
        some = left[-_RELEASED:]
        del left[-_RELEASED:]
        for each in [each for each in some if len(each) > _SMALL]:
            part: Any
            if type(each) is dict:
                part = list(each.values())
                each.clear()
                left.append(part)
                continue
            part = each[-_RELEASED:]
            del each[-_RELEASED:]
            left.append(each)
            left += [inner for inner in part if type(inner) in _CONTAINERS]
        left += [
            inner
            for each in some
            if len(each) <= _SMALL
            for inner in (each if type(each) is list else each.values())
            if type(inner) in _CONTAINERS
        ]


def _is_utf8(text: bytes) -> bool:
    """Return whether a text is UTF-8, which orjson checks before anything else."""
    if text.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(text), SLICE):
            decoder.decode(text[at : at + SLICE], at + SLICE >= len(text))
    except UnicodeDecodeError:
        return False
    return True


def _parsed(
    text: bytes, start: int, end: int, kinds: str, after: str, last: bool, parse: Parser
) -> Any:
    """Parse a slice whose first byte is in the containers ``kinds``, whose end in ``after``."""
    before = b"".join(_OPEN[kind] for kind in kinds[:-1]) + _FIRST.get(kinds[-1:], b"")
    closing = b""
    if not last:
        closing = _LAST.get(after[-1:], b",") + b"".join(_CLOSE[kind] for kind in reversed(after))
    try:
        return parse(b"".join((before, text[start:end], closing)))
    except orjson.JSONDecodeError as error:
        whole = text.decode()
        at = len(text[:start].decode()) + error.pos - len(before)
        raise orjson.JSONDecodeError(error.msg, whole, at) from None


def _join(value: Any, path: list[Any]) -> None:
    """Add a slice's elements to the containers that were open at its start."""
    for container in path:
        if type(container) is list:
            inner = value[0]
            container += value[1:]
        else:
            inner = value.pop(_BEFORE)
            container.update(value)
        value = inner


def _opened(value: Any, depth: int, kept: int, kinds: str) -> list[Any]:
    """Return the containers that a slice leaves open, without the ``kept`` ones before it.

    Removes the marker at its end. ``depth`` containers were open at its start.
    """
    if depth == 0:
        return _to_the_end(value, kinds) or []
    for _ in range(kept - 1):
        value = value[0] if type(value) is list else value[_BEFORE]
    if not kinds:
        _take_marker(value)
        return []
    return _within(value, kinds) or []


def _within(container: Any, kinds: str) -> list[Any] | None:
    """Return the containers from an element of this one to the marker at the slice's end."""
    if type(container) is list:
        return _to_the_end(container[-1], kinds)
    # A repeated key keeps its place, so the last value need not be the one at the end.
    for name in reversed(container):
        if name != _BEFORE and (found := _to_the_end(container[name], kinds)) is not None:
            return found
    return None


def _to_the_end(value: Any, kinds: str) -> list[Any] | None:
    if type(value) is not (list if kinds[0] == "[" else dict):
        return None
    if len(kinds) == 1:
        return [value] if _take_marker(value) else None
    if not value:
        return None
    inner = _within(value, kinds[1:])
    return None if inner is None else [value, *inner]


def _take_marker(container: Any) -> bool:
    if type(container) is dict:
        return container.pop(_AFTER, None) is not None
    if container and container[-1] == _AFTER:
        del container[-1]
        return True
    return False


class _Cuts:
    """Finds where a text can be cut, front to back."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0
        self._kinds = ""
        self._containers = 0

    def next(self) -> tuple[int, int, str] | None:
        """Return the next cut, or None if the rest is one slice.

        A cut is the position of a comma, the number of containers that have been open since the
        cut before, and a bracket for each container that is open there.
        """
        text, kept = self._text, len(self._kinds)
        in_string = escaped = False
        while len(text) - self._at > SLICE:
            piece = text[self._at : self._at + SLICE]
            part = np.frombuffer(piece, np.uint8)
            if in_string or escaped or b'"' in piece or b"\\" in piece:
                outside, in_string, escaped = _outside_strings(part, in_string, escaped)
                commas = np.flatnonzero(outside & (part == 0x2C))
                comma = int(commas[-1]) if commas.size else -1
            else:
                outside, comma = None, piece.rfind(b",")
            end = comma if comma >= 0 else SLICE
            if any(bracket in piece for bracket in _BRACKETS):
                kept = min(kept, self._nest(part[:end], outside))
            self._at += end + (comma >= 0)
            if comma >= 0:
                return self._at - 1, kept, self._kinds
        return None

    def _nest(self, part: Any, outside: Any) -> int:
        """Follow the brackets of a part; return how many containers stayed open throughout.

        ``outside`` is the mask of the bytes outside strings; None if there are no strings.
        """
        folded = part | 0x20  # the two opening brackets become one, and so do the closing ones
        brackets = (folded == 0x7B) | (folded == 0x7D)
        if outside is not None:
            brackets &= outside[: len(part)]
        places = np.flatnonzero(brackets)
        if not places.size:
            return len(self._kinds)
        opening = folded[places] == 0x7B
        self._containers += int(np.count_nonzero(opening))
        if self._containers > MAX_CONTAINERS:
            raise TooManyContainers
        depth = np.cumsum(np.where(opening, 1, -1))
        lowest = min(0, int(depth.min()))
        kept = max(0, len(self._kinds) + lowest)
        # Brackets that no later one goes below are those of containers still open.
        later = np.minimum.accumulate(depth[::-1])[::-1]
        still = opening & (depth == later) & (depth > lowest)
        opened = part[places[still]].tobytes().decode("latin-1")
        self._kinds = self._kinds[:kept] + opened
        return kept


def _outside_strings(part: Any, in_string: bool, escaped: bool) -> tuple[Any, bool, bool]:
    """Return the mask of the bytes outside strings, and the state at the end of the part.

    The state: whether a string is open, and whether the next byte is escaped.
    """
    quotes = part == 0x22
    slashes = part == 0x5C
    if escaped or slashes.any():
        at = np.arange(len(part))
        last = np.maximum.accumulate(np.where(slashes, -1, at))
        before = np.concatenate(([-1], last[:-1]))  # the last other byte before each
        run = at - 1 - before + np.where(before < 0, int(escaped), 0)
        quotes &= run % 2 == 0
        end = int(last[-1])
        trailing = len(part) - 1 - end + (int(escaped) if end < 0 else 0)
        escaped = trailing % 2 == 1
    inside = (np.cumsum(quotes) + int(in_string)) % 2 == 1
    return ~(inside | quotes), bool(inside[-1]), escaped
