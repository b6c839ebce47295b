"""Parses one cell, a JSON value or a text, to a value of a contract type.

Owns the grammar of numbers and booleans, and the messages for a cell that violates it. Every reader
uses it (CSV, JSON Lines, queries, events, requests, devices), whatever fast path it has besides: a
fast path may only accept what this module accepts, and with the same value.

The rules:

* An integer is exact or rejected. It never passes through a float: a float is accepted as an
  integer only within the range where every integer is exact (below 2**24 for float32, 2**53 for
  float64), because a larger one may have been rounded earlier.
* A number written as an integer (digits, no point, no exponent) that a float field would round is
  rejected. A fraction is rounded to the nearest value of its type, as usual.
* Digits are ASCII. ``0x10`` and ``1_000`` are not numbers. Text is trimmed; ``NaN`` in a text is a
  missing number.
* JSON types are strict: a text is not a number, a number is not a text, true is not 1.
* A date or time is a text (:mod:`.times`), or a whole number where the source has numbers.
* Bytes are base64 where the source has only texts.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

from . import exact_json
from .times import count_of, example, is_time

Fault = str | None

EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}
"""Integers up to this magnitude are exact in a float."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DIGITS = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORDS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
_MOST_CHARACTERS = 200
"""Maximum length of a text that is parsed as an integer."""

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def shown(value: object) -> str:
    """Format a value for people, cut to one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return str(value).removesuffix(".0")


def is_float(kind: str) -> bool:
    """Return whether a contract type is a float."""
    return kind.startswith("float")


def not_text(value: Any) -> str:
    """Return the message that a JSON value is not text."""
    return f"{said(value)} is not text"


def wanted(kind: str) -> str:
    """Return the description of a value of the contract type ``kind``."""
    if kind in ("bool", "string"):
        return {"bool": "true or false", "string": "text"}[kind]
    if is_time(kind):
        return f"a text such as {example(kind)}, or a whole number"
    if kind == "bytes":
        return "text in base64"
    return "a number" if is_float(kind) else "a whole number"


def outside(value: object, kind: str) -> str:
    """Return the message that an integer is outside the range of its type."""
    limits = np.iinfo(kind)
    return f"{value} is outside {kind} ({limits.min} to {limits.max})"


def json_object(raw: bytes) -> tuple[dict[str, Any] | None, Fault]:
    """Parse one record; a leading byte order mark is skipped.

    Returns the object and None, or None and the fault.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    if not raw.strip():
        return None, "it is not JSON: it is empty"
    try:
        found = exact_json.loads(raw)
    except ValueError as error:
        return None, f"it is not JSON: {str(error).partition(':')[0]}"
    return (found, None) if isinstance(found, dict) else (None, "it is not a JSON object")


def from_json(kind: str, value: Any) -> tuple[Any, Fault]:
    """Parse one JSON value that is not null: the typed value and None, or None and the fault.

    NaN, which occurs only in Python values, is a missing number.
    """
    if kind == "string":
        return (value, None) if type(value) is str else (None, not_text(value))
    if kind == "bool":
        fits = type(value) is bool
        return (value, None) if fits else (None, f"{said(value)} is not {wanted(kind)}")
    if type(value) is str and (kind == "bytes" or is_time(kind)):
        return from_text(kind, value)
    if kind == "bytes":
        # As TensorFlow Serving's clients write them.
        if type(value) is dict and value.keys() == {"b64"} and type(value["b64"]) is str:
            return from_text(kind, value["b64"])
        fits = type(value) is bytes
        return (value, None) if fits else (None, f"{said(value)} is not {wanted(kind)}")
    if type(value) is not int and type(value) is not float:
        return None, f"{said(value)} is not {wanted(kind)}"
    if not is_float(kind):
        return whole("int64" if is_time(kind) else kind, value)
    if type(value) is int and abs(value) > EXACT[kind]:
        return _unrounded(kind, value, str(value))
    return float(value), None


def whole(kind: str, value: int | float, source: str = "float64") -> tuple[int | None, Fault]:
    """Convert a number to an integer of the type ``kind``: it and None, or None and the fault.

    ``source`` is the original type of a float, which determines the range in which it is exact.
    """
    limits = np.iinfo(kind)
    if isinstance(value, float):
        if math.isnan(value):
            return None, "missing"
        if math.isinf(value):
            return None, f"{shown(value)} is not finite"
        if value != math.trunc(value):
            return None, f"{shown(value)} is not a whole number"
        if not limits.min <= value < float(limits.max + 1):
            return None, outside(shown(value), kind)
        if abs(value) >= EXACT[source]:
            return None, (
                f"{shown(value)} came as a float, which may have rounded it; "
                "write it as a whole number"
            )
        value = int(value)
    if limits.min <= value <= limits.max:
        return value, None
    return None, outside(value, kind)


def from_text(kind: str, text: str) -> tuple[Any, Fault]:
    """Parse one non-empty, trimmed text to any type but string.

    Returns the typed value and None; None and None if it is missing (NaN); or None and the fault.
    """
    if kind == "bytes":
        try:
            return base64.b64decode(text, validate=True), None
        except (binascii.Error, ValueError):
            return None, f"{shown(text)} is not base64"
    if is_time(kind):
        try:
            return count_of(kind, text), None
        except ValueError as error:
            return None, str(error)
    if kind == "bool":
        truth = _TRUTHS.get(text.lower()) if text.isascii() else None
        return truth, None if truth is not None else f"{shown(text)} is not true or false"
    word = _WORDS.get(text.removeprefix("-").removeprefix("+").lower())
    if word is not None:
        if math.isnan(word):
            return None, None
        value = -word if text.startswith("-") else word
        return (value, None) if is_float(kind) else (None, f"{shown(value)} is not finite")
    if not _NUMBER.fullmatch(text):
        return None, f"{shown(text)} is not {wanted(kind)}"
    if is_float(kind):
        value = float(text)
        if abs(value) >= EXACT[kind] and _DIGITS.fullmatch(text):
            return _unrounded(kind, int(text) if len(text) <= 400 else math.inf, text)
        return value, None
    if len(text) > _MOST_CHARACTERS:
        return None, f"{shown(text)} is longer than {_MOST_CHARACTERS} characters"
    number = Decimal(text)  # exact, whatever its length
    if number and number.adjusted() > _MOST_CHARACTERS:
        return None, outside(text, kind)
    if number and number.adjusted() < 0:
        return None, f"{text} is not a whole number"
    above, below = number.as_integer_ratio() if number else (0, 1)
    if below != 1:
        return None, f"{text} is not a whole number"
    limits = np.iinfo(kind)
    return (above, None) if limits.min <= above <= limits.max else (None, outside(text, kind))


def _unrounded(kind: str, value: int | float, text: str) -> tuple[float | None, Fault]:
    """Convert an integer to a float: exactly, or reject it."""
    try:
        kept = float(value)
    except OverflowError:
        kept = math.inf
    with np.errstate(over="ignore"):
        rounded = float(np.dtype(kind).type(kept))
    if math.isinf(rounded):
        return None, f"{shown_number(text)} does not fit {kind}"
    if rounded == value:
        return kept, None
    return None, f"{shown_number(text)} would be rounded in {kind}"


def shown_number(text: str) -> str:
    """Cut a long number to the length of a line."""
    return text if len(text) <= 60 else text[:57] + "..."


def said(value: Any) -> str:
    """Describe a JSON value for people."""
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else shown(value)
