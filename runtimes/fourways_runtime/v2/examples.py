"""An example record of a contract, for people and for the documents that they read.

Owns where its values come from: a real record's, if one is known and its value is short and
complete; otherwise values made up from the contract. Pure: no I/O, no numpy.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from fourways_api import Contract, InputField
from fourways_runtime.scoring import times
from fourways_runtime.scoring.images import EXAMPLE

from .protocol import DATATYPES

MAX_BYTES = 2_000
"""Maximum size of a real value in JSON: images and long series are made up instead."""


def examples_of(contract: Contract, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each input, nested as its shape; ``known`` are values by column."""
    return {field.name: _known(field, known) for field in contract.inputs}


def example_tensor(field: InputField, value: Any) -> dict[str, Any]:
    """Return the tensor of one record with this value."""
    shape = [1]
    inner = value
    for _ in field.value_shape:
        shape.append(len(inner))
        inner = inner[0]
    return {
        "name": field.name,
        "datatype": DATATYPES[field.type],
        "shape": shape,
        "data": [value],
    }


def _known(field: InputField, known: Mapping[str, Any]) -> Any:
    value = [known.get(name) for name in field.column_names] if field.columns else None
    value = known.get(field.name) if value is None else value
    try:
        short = len(encoded := orjson.dumps(value)) <= MAX_BYTES and b"null" not in encoded
    except TypeError:  # an integer of more than 64 bits
        short = False
    return value if short else _made_up(field)


def _made_up(field: InputField) -> Any:
    """Return a value that the contract allows, nested as the field's shape."""
    value: Any = 0
    if field.categories:
        value = field.categories[0]
    elif field.type in ("bool", "string", "bytes") and field.image is None:
        value = {"bool": False, "bytes": "QUJD"}.get(field.type, "TEXT")
    elif field.image is not None:
        value = base64.b64encode(EXAMPLE).decode()
    elif times.is_time(field.type):
        value = times.example(field.type)
    elif field.range is not None:
        low, high = field.range.min, field.range.max
        if low is not None and low > 0:
            value = low
        elif high is not None and high < 0:
            value = high
    for size in reversed(field.value_shape):
        value = [value] * abs(size)
    return value
