"""Text keys as Arrow has them, for those who take an array of objects."""

import numpy as np
import pyarrow as pa
import pytest

from fourways_runtime.io.postgres.copy_in import Packer
from fourways_runtime.io.table_columns import TableColumn
from fourways_runtime.scoring.columns import Texts

VALUES = ["a", "", "grüße", "d" * 40, "e"]


def _sliced() -> Texts:
    """Return texts that begin in the middle of their memory, as a batch of a larger table does."""
    return Texts(pa.array(["before", *VALUES, "after"], pa.string())[1:-1])


def test_texts_are_an_array_of_objects() -> None:
    texts = _sliced()
    assert len(texts) == len(VALUES)
    assert texts.tolist() == list(texts) == VALUES
    assert texts[2] == texts[np.int64(2)] == "grüße"
    assert np.asarray(texts).dtype == object
    assert np.concatenate([texts, texts]).tolist() == VALUES * 2


def test_texts_are_chosen_by_slice_mask_and_index() -> None:
    texts = _sliced()
    assert texts[1:3].tolist() == VALUES[1:3]
    assert texts[np.array([True, False, True, False, False])].tolist() == ["a", "grüße"]
    assert texts[np.array([4, 0])].tolist() == ["e", "a"]
    assert texts[np.array([], np.int64)].tolist() == []


def test_texts_and_objects_are_packed_alike() -> None:
    columns = [
        TableColumn("id", "id", "string", ()),
        TableColumn("n", "n", "int64", ()),
        TableColumn("label", "label", "string", ()),
    ]
    number, texts = np.arange(len(VALUES)), _sliced()
    packed = Packer(columns).pack([texts, number, texts])
    objects = np.array(VALUES, object)
    assert packed == Packer(columns).pack([objects, number, objects])
    first = b"\0\x03" + b"\0\0\0\x01a" + b"\0\0\0\x08" + bytes(8) + b"\0\0\0\x01a"
    second = b"\0\x03" + b"\0\0\0\0" + b"\0\0\0\x08" + bytes(7) + b"\x01" + b"\0\0\0\0"
    assert packed.startswith(first + second)


@pytest.mark.parametrize(
    "keys",
    [
        ["k1", "k2", "k3"],
        ["grüße1", "grüßf2", "grüßg3"],
        ["", "", ""],
        ["a\0b", "c\0d", "e\0\0"],
        ["one", "three", "six"],
    ],
)
@pytest.mark.parametrize("shape", [(), (2,)])
def test_keys_of_one_length_are_packed_like_any(keys: list[str], shape: tuple[int, ...]) -> None:
    columns = [
        TableColumn("id", "id", "string", ()),
        TableColumn("n", "n", "uint64", ()),
        TableColumn("y", "y", "float32", shape),
    ]
    texts = Texts(pa.array(["before", *keys, "after"], pa.string())[1:-1])
    values = [np.arange(len(keys), dtype=np.uint64) + 2**63, np.ones((len(keys), *shape), "f4")]
    packed = Packer(columns).pack([texts, *values])
    # Objects are packed row by row, however long they are.
    assert packed == Packer(columns).pack([np.array(keys, object), *values])
    part = Texts(texts.arrow[1:2])
    assert Packer(columns).pack([part, *(column[1:2] for column in values)]) in packed
