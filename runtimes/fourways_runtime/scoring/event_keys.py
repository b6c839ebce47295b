"""The entity key of an event: the value under the key's name, or else the broker's key.

Everything that reads events (scoring, tombstones, labels from a topic) finds the key here, so that
a label finds the prediction of its key. Pure: no broker.
"""

from __future__ import annotations

from typing import Any

from fourways_api.contract import EntityKey

_INT64_DIGITS = 19


def broker_text(key: bytes | None) -> str | None:
    """Return a broker's key as text; None if there is none, or if it is not UTF-8."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def broker_key(kind: str, key: bytes | None) -> str | int | None:
    """Return a broker's key as the contract's type of key, ``string`` or ``int64``.

    A text that is no whole number in ASCII digits stays a text, which an int64 key then rejects.
    """
    text = broker_text(key)
    if text is None or kind != "int64":
        return text
    digits = text.removeprefix("-")
    whole = digits.isascii() and digits.isdigit() and len(digits) <= _INT64_DIGITS
    return int(text) if whole else text


def put_broker_key(document: dict[str, Any], key: EntityKey, brokers: bytes | None) -> None:
    """Set the entity key of a record that has none to the broker's key."""
    if document.get(key.name) is None:
        document[key.name] = broker_key(key.type, brokers)
