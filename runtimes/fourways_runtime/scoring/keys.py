"""Shared by both readers: keys as requested, and as the store holds them."""

from __future__ import annotations

from collections.abc import Iterable

from .columns import Key

_INT64 = range(-(2**63), 2**63)


def group_keys(kind: str, keys: Iterable[Key]) -> dict[Key, list[Key]]:
    """Group the requested keys by the key of the contract's type that they represent.

    A key that cannot have that type (``"x"`` for int64, a text no database stores) is omitted.
    """
    meant: dict[Key, list[Key]] = {}
    for key in dict.fromkeys(keys):
        stored = _whole(key) if kind == "int64" else _text(key)
        if stored is not None:
            meant.setdefault(stored, []).append(key)
    return meant


def _whole(key: Key) -> int | None:
    if isinstance(key, str):
        digits = key.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            return None
        key = int(key)
    return key if key in _INT64 else None


def _text(key: Key) -> str | None:
    text = str(key)
    if "\0" in text:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text
