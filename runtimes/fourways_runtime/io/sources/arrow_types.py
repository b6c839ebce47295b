"""Arrow types that stand for a simpler one: views, extensions, dictionaries.

A reader casts them once, while reading, so that no later code meets them: Arrow has no kernel for
many of them (a string view can be read but not filtered). Pure.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.scoring.cells import is_list
from fourways_runtime.scoring.columns import Array

_UUID_BYTES = 16
_UUID_GROUPS = (0, 4, 6, 8, 10, 16)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def plain_type(found: Any) -> Any:
    """Return the type to which cells of the type ``found`` are cast."""
    if pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_binary_view(found):
        return pa.binary()
    if pa.types.is_dictionary(found) and plain_type(found.value_type) is not found.value_type:
        return pa.dictionary(found.index_type, plain_type(found.value_type), found.ordered)
    if is_list(found) and plain_type(found.value_type) is not found.value_type:
        return _list_of(plain_type(found.value_type), found)
    if isinstance(found, pa.BaseExtensionType):
        if found.extension_name == "arrow.uuid":
            return pa.string()
        return plain_type(found.storage_type)
    return found


def _list_of(element: Any, like: Any) -> Any:
    if pa.types.is_fixed_size_list(like):
        return pa.list_(element, like.list_size)
    return pa.large_list(element) if pa.types.is_large_list(like) else pa.list_(element)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with every column cast according to :func:`plain_type`."""
    if all(plain_type(each.type) is each.type for each in batch.schema):
        return batch
    columns = [plain_column(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def plain_column(column: Any) -> Any:
    """Return cells cast by :func:`plain_type`. A UUID becomes its text with dashes (RFC 9562)."""
    found = column.type
    if not isinstance(found, pa.BaseExtensionType):
        to = plain_type(found)
        if pa.types.is_dictionary(found) and to is not found:
            values = plain_column(column.dictionary)
            return pa.DictionaryArray.from_arrays(column.indices, values, ordered=found.ordered)
        return column if to is found else column.cast(to)
    if found.extension_name == "arrow.uuid":
        return _uuid_texts(column.storage)
    return plain_column(column.storage)


def _uuid_texts(storage: Any) -> Any:
    """Write the 16 bytes of each UUID as 8-4-4-4-12 hexadecimal digits."""
    count = len(storage)
    filled = storage.fill_null(bytes(_UUID_BYTES)) if storage.null_count else storage
    data = filled.buffers()[1]
    start = filled.offset * _UUID_BYTES
    raw = np.frombuffer(data, np.uint8)[start : start + count * _UUID_BYTES]
    raw = raw.reshape(count, _UUID_BYTES)
    digits: Array = np.empty((count, _UUID_BYTES, 2), np.uint8)
    digits[:, :, 0], digits[:, :, 1] = _HEX[raw >> 4], _HEX[raw & 15]
    digits = digits.reshape(count, 2 * _UUID_BYTES)
    dash = np.full((count, 1), ord("-"), np.uint8)
    parts: list[Array] = []
    for begin, end in pairwise(_UUID_GROUPS):
        parts += [digits[:, 2 * begin : 2 * end], dash]
    texts = np.ascontiguousarray(np.hstack(parts[:-1]))
    ends = np.arange(0, texts.size + 1, texts.shape[1], dtype=np.int32)
    found = pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(texts.tobytes())]
    )
    if not storage.null_count:
        return found
    nothing: Any = pa.scalar(None, pa.string())
    return pc.if_else(storage.is_valid(), found, nothing)
