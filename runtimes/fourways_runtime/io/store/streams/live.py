"""A stream's live table, as both databases agree on it.

A row an entity key: the key, the outputs, when they were computed and by which model. A shaped
output is one flat list, row-major: the contract says what it was. One table a deployment and output
layout; a contract with other outputs gets a new one.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import numpy as np
import orjson

from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.columns import Array, Predictions

from .. import layout
from .stream import ID_HEADER, DeadLetter, DeadLetterReason, StreamDeclaration

COMPUTED_AT = "$computed_at"
MODEL = "$model"


def table_name(stream: StreamDeclaration) -> str:
    """Return the name of a stream's live table."""
    told = [stream.namespace, stream.deployment, "live"]
    for column in layout.columns(stream.contract):
        told += [column.identifier, column.kind, str(math.prod(column.shape)), str(column.shape)]
    return "live_" + hashlib.sha256("\0".join(told).encode()).hexdigest()[:24]


def latest(predictions: Predictions) -> Array:
    """Return the index of the answer that counts for each key, in the keys' order.

    In order, because two workers that lock rows in one order do not wait for one another for ever.
    """
    rows, keys = predictions.rows, predictions.keys
    if (np.diff(rows) > 0).all():
        last = dict(zip(keys.tolist(), range(len(rows)), strict=True))
    else:
        order = np.argsort(rows)
        last = dict(zip(keys[order].tolist(), order.tolist(), strict=True))
    return np.array([last[key] for key in sorted(last)], np.int64)


def flat(column: TableColumn, values: Array) -> Array:
    """Return values (N, *shape) as (N,) or (N, elements)."""
    return values.reshape(len(values), -1) if column.shape else values


def shaped(column: TableColumn, elements: Any) -> Any:
    """Return a flat list as the nested one it was; a single value as it is."""
    for size in reversed(column.shape[1:]):
        elements = [elements[at : at + size] for at in range(0, len(elements), size)]
    return elements


def headers_text(letter: DeadLetter) -> str:
    """Write headers as JSON pairs; bytes that are no text as ``{"base64": …}``."""
    return orjson.dumps([[_plain(name), _header(value)] for name, value in letter.headers]).decode()


def refused(headers: str, reason: str, attempts: int) -> DeadLetterReason:
    """Read a dead letter; of headers of one name the last counts."""
    found = dict(orjson.loads(headers)).get(ID_HEADER)
    return DeadLetterReason(found if isinstance(found, str) else None, reason, attempts)


def storable(text: str) -> str:
    """Return text a database takes: reasons quote what an event held."""
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()


def _header(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return _plain(value.decode())
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _plain(text: str) -> str:
    return storable(text)
