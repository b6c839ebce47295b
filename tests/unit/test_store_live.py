"""What a micro-batch is made into before it is written: one answer a key, texts as an array."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest

from fourways_runtime.io.postgres import arrays as pgarray
from fourways_runtime.io.store.streams import live
from fourways_runtime.scoring.columns import Keys, Predictions, Texts


def unpacked(raw: bytes) -> list[str]:
    """Read an array of texts in PostgreSQL's binary form."""
    dimensions, nulls, oid = struct.unpack_from(">iii", raw)
    assert (nulls, oid) == (0, 25)
    if not dimensions:
        assert len(raw) == 12
        return []
    count, lower = struct.unpack_from(">ii", raw, 12)
    assert (dimensions, lower) == (1, 1)
    found, at = [], 20
    for _ in range(count):
        (length,) = struct.unpack_from(">i", raw, at)
        found.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    assert at == len(raw)
    return found


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["", ""],
        ["a"],
        ["ab", "cd"],
        ["a", "bc"],
        ["é", "b"],
        ["é", "ü"],
        ["k" * 300] * 3,
        ["ab", "é"],
        ["a\tb", "c d"],
    ],
)
def test_texts_of_one_length_and_of_many_come_out_as_they_went_in(texts: list[str]) -> None:
    assert unpacked(pgarray.texts(texts)) == texts


def objects(keys: list[str]) -> Keys:
    found = np.empty(len(keys), object)
    found[:] = keys
    return found


@pytest.mark.parametrize("kind", ["objects", "texts", "numbers"])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 9, 4, 3]])
def test_of_answers_for_one_key_that_of_the_last_row_counts(kind: str, rows: list[int]) -> None:
    names = ["7", "3", "7", "5", "3"]
    keys: Keys = objects(names)
    if kind == "texts":
        keys = Texts(pa.array(names))
    elif kind == "numbers":
        keys = np.array([7, 3, 7, 5, 3])
    predictions = Predictions(keys, np.array(rows), {"y": np.arange(5)})
    chosen = live.latest(predictions)
    wanted = [
        max((at for at in range(5) if names[at] == name), key=lambda at: rows[at])
        for name in ("3", "5", "7")
    ]
    assert chosen.dtype == np.int64
    assert chosen.tolist() == wanted


def test_no_answers_are_none() -> None:
    none = Predictions(objects([]), np.empty(0, np.int64), {})
    assert live.latest(none).tolist() == []
