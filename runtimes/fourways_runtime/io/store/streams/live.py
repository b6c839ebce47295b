"""The layout of a stream's live table, shared by both databases.

One row per entity key: the key, the outputs, when they were computed and by which model. A shaped
output is stored as one flat list in row-major order; the contract has its shape. One table per
deployment and output layout; a contract with other outputs gets a new one.
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

COMPUTED_AT = layout.COMPUTED_AT
MODEL = "$model"


def table_name(stream: StreamDeclaration) -> str:
    """Return the name of a stream's live table."""
    identity = [stream.namespace, stream.deployment, "live"]
    for column in layout.columns(stream.contract):
        identity += [
            column.identifier,
            column.kind,
            str(math.prod(column.shape)),
            str(column.shape),
        ]
    return "live_" + hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]


def latest(predictions: Predictions) -> Array:
    """Return the index of the prediction that counts for each key, ordered by key.

    In order, because two workers that lock rows in the same order cannot deadlock.
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
    """Return a flat list as the nested list it was; a single value unchanged."""
    for size in reversed(column.shape[1:]):
        elements = [elements[at : at + size] for at in range(0, len(elements), size)]
    return elements


def headers_text(letter: DeadLetter) -> str:
    """Serialize headers as JSON pairs; bytes that are not text as ``{"base64": …}``."""
    return orjson.dumps([[_plain(name), _header(value)] for name, value in letter.headers]).decode()


def refused(headers: str, reason: str, attempts: int) -> DeadLetterReason:
    """Parse a dead letter; if several headers share a name, the last one wins."""
    found = dict(orjson.loads(headers)).get(ID_HEADER)
    return DeadLetterReason(found if isinstance(found, str) else None, reason, attempts)


def storable(text: str) -> str:
    """Return text that a database accepts: reasons quote values from an event."""
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
