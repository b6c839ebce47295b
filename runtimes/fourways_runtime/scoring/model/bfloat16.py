"""Tensors of bfloat16, a type that numpy lacks: the upper half of a float32.

A model's inputs and outputs of this type are float32 outside of it; the values are cast here.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ..columns import Array

ONNX_TYPE = 16
"""``TensorProto.BFLOAT16``."""


def bits_of(values: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; return its bits as uint16."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (words + (0x7FFF + ((words >> 16) & 1))) >> 16
    # Rounding up the payload of a NaN would make it another number.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bits(bits: Array) -> Array:
    """Return bfloat16, given as uint16, as float32 of the same shape."""
    widened: Array = bits.astype(np.uint32) << 16
    return widened.view(np.float32)


def read(value: Any) -> Array:
    """Copy an OrtValue of bfloat16 in main memory to an array of float32."""
    shape = tuple(value.shape())
    size = 2 * int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return from_bits(np.frombuffer(raw, np.uint16).reshape(shape))
