"""JSON whose whole numbers keep all their digits.

orjson gives an integer of 64 bits exactly, and a longer one as the nearest float. A neighbor of
what was written must not reach a model, so :func:`loads` gives longer ones as Python's integers.
Looking for them in the text takes as long as parsing it. Readers of many records therefore parse
with orjson, and use this module only if one of the numbers is :data:`BEYOND`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

BEYOND = 2.0**63
"""A float of at least this magnitude may stand for an integer of more than 64 bits."""

_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_RUN = b"0" * 19
_LONG = re.compile(rb"(?<![0-9.])[0-9]{19,}(?![0-9.eE])")


def loads(text: bytes | str) -> Any:
    """Return what ``orjson.loads`` returns, but every integer exactly.

    Raises orjson.JSONDecodeError as it does.
    """
    found = orjson.loads(text)
    raw = text.encode() if isinstance(text, str) else text
    # To search for one text is many times faster than to match a pattern.
    if _RUN not in raw.translate(_DIGIT) or _LONG.search(raw) is None:
        return found
    try:
        return json.loads(raw)
    except RecursionError:
        raise orjson.JSONDecodeError("lists and objects are nested too deep", "", 0) from None


def dumps(value: Any) -> bytes:
    """Return the JSON text of what :func:`loads` returned."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
