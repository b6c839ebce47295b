"""Decoding: what a raw column comes to, what is refused, and with which words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.cells import accepts
from fourways_runtime.scoring.checks import MAX_KEY_BYTES
from fourways_runtime.scoring.columns import Records, Reject
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.inputs import fitted


def contract(*inputs: dict[str, Any], key: str = "string") -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": key},
            "inputs": list(inputs) or [{"name": "x", "type": "float32"}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )


def decode(values: Any, **field: Any) -> tuple[Any, list[str]]:
    """Decode one column; return the good values and the reasons, in order."""
    column = values if isinstance(values, pa.Array) else pa.array(values)
    keys = pa.array([str(at) for at in range(len(column))])
    batch = pa.RecordBatch.from_arrays([keys, column], ["id", "x"])
    decoder = Decoder(contract({"name": "x", **field}))
    records, rejects = decoder.decode(batch, np.arange(len(column)))
    assert len(records) + len(rejects) == len(column)
    return records.columns["x"], [f"{reject.row}: {reject}" for reject in rejects]


@pytest.mark.parametrize(
    ("values", "field", "good", "reasons"),
    [
        pytest.param(
            [5, -3, 121, None],
            {"type": "int32", "range": {"min": 0, "max": 120}},
            [5],
            ["1: x: -3 is below 0", "2: x: 121 is above 120", "3: x: missing"],
            id="range",
        ),
        pytest.param(
            [1.0, 1.5, math.nan, math.inf, 2.0**31],
            {"type": "int32"},
            [1],
            [
                "1: x: 1.5 is not a whole number",
                "2: x: missing",
                "3: x: inf is not finite",
                "4: x: 2147483648 is outside int32 (-2147483648 to 2147483647)",
            ],
            id="floats as whole numbers",
        ),
        pytest.param(
            [-(2.0**63), 2.0**63, 2.0**53 - 1],
            {"type": "int64"},
            [2**53 - 1],
            [
                f"0: x: {-(2.0**63)} came as a float, which may have rounded it; "
                "write it as a whole number",
                f"1: x: {2.0**63} is outside int64 ({-(2**63)} to {2**63 - 1})",
            ],
            id="floats that may have been rounded",
        ),
        pytest.param(
            [1.0, math.nan, -math.inf, 1e300],
            {"type": "float32"},
            [1],
            ["1: x: missing", "2: x: -inf is not finite", "3: x: 1e+300 does not fit float32"],
            id="floats",
        ),
        pytest.param(
            [2**54, 2**53 + 1, -(2**53) - 1],
            {"type": "float64"},
            [2.0**54],
            [
                "1: x: 9007199254740993 would be rounded in float64",
                "2: x: -9007199254740993 would be rounded in float64",
            ],
            id="whole numbers a float rounds",
        ),
        pytest.param(
            [127, 128],
            {"type": "int8"},
            [127],
            ["1: x: 128 is outside int8 (-128 to 127)"],
            id="int8",
        ),
        pytest.param(
            pa.array([2**63, 1], pa.uint64()),
            {"type": "int64"},
            [1],
            [
                "0: x: 9223372036854775808 is outside int64 "
                "(-9223372036854775808 to 9223372036854775807)"
            ],
            id="uint64 to int64",
        ),
        pytest.param(
            ["basic", "gold", None],
            {"type": "string", "categories": ["basic", "plus"]},
            ["basic"],
            ["1: x: 'gold' is not one of basic, plus", "2: x: missing"],
            id="categories",
        ),
        pytest.param(
            pa.array(["a", None, "a"]).dictionary_encode(),
            {"type": "string", "nullable": True},
            ["a", "", "a"],
            [],
            id="dictionary",
        ),
        pytest.param(
            pa.array([b"ok", b"\xff"]),
            {"type": "string"},
            ["ok"],
            ["1: x: '\ufffd' is not UTF-8"],
            id="not UTF-8",
        ),
        pytest.param([True, None], {"type": "bool"}, [True], ["1: x: missing"], id="bool"),
        pytest.param(pa.nulls(1), {"type": "int8"}, [], ["0: x: missing"], id="all null"),
    ],
)
def test_each_value_is_taken_or_refused_with_its_reason(
    values: Any, field: dict[str, Any], good: list[Any], reasons: list[str]
) -> None:
    found, told = decode(values, **field)
    assert found.tolist() == good
    assert told == reasons


NINES = "9" * 25


@pytest.mark.parametrize(
    ("text", "kind", "good", "reasons"),
    [
        (["3", " 4 ", "5.0", "+6"], "int16", [3, 4, 5, 6], []),
        (["", None], "int16", [], ["0: x: missing", "1: x: missing"]),
        (["x"], "int64", [], ["0: x: 'x' is not a whole number"]),
        (["1.5"], "int64", [], ["0: x: 1.5 is not a whole number"]),
        ([NINES], "uint64", [], [f"0: x: {NINES} is outside uint64 (0 to {2**64 - 1})"]),
        (["18446744073709551615"], "uint64", [2**64 - 1], []),
        (["-5"], "uint8", [], ["0: x: -5 is outside uint8 (0 to 255)"]),
        (["1e3", ".5", "1_0"], "float64", [1000, 0.5], ["2: x: '1_0' is not a number"]),
        (["nan", "1e999"], "float64", [], ["0: x: missing", "1: x: inf is not finite"]),
        (["true", "FALSE", "1"], "bool", [True, False, True], []),
        (["yes"], "bool", [], ["0: x: 'yes' is not true or false"]),
    ],
)
def test_text_is_parsed_by_the_contract(
    text: list[Any], kind: str, good: list[Any], reasons: list[str]
) -> None:
    found, told = decode(pa.array(text, pa.string()), type=kind)
    assert found.dtype == np.dtype(kind)
    assert found.tolist() == good
    assert told == reasons


def test_a_missing_float_reaches_the_model_as_nan() -> None:
    found, told = decode(pa.array([1, None]), type="float32", nullable=True)
    assert told == []
    np.testing.assert_array_equal(found, np.array([1, np.nan], np.float32))


@pytest.mark.parametrize(
    "values",
    [
        pa.array(
            [[[1, 2], [3, 4]], [[1, 2]], [[1, 2], [3]], [[1, 2], None], None, [[1, 2], [3, -9]]]
        ),
        pa.array(
            ["[[1,2],[3,4]]", "[[1,2]]", "[[1,2],[3]]", "[[1,2],null]", None, "[[1,2],[3,-9]]"]
        ),
    ],
)
def test_shaped_fields_need_their_shape(values: Any) -> None:
    found, told = decode(values, type="int32", shape=[2, 2], range={"min": 0})
    assert found.tolist() == [[[1, 2], [3, 4]]]
    assert [reason.partition(":")[0] for reason in told] == ["1", "2", "3", "4", "5"]
    assert told[4] == "5: x: element [1, 1]: -9 is below 0"
    assert told[3] == "4: x: missing"


def test_a_flat_list_of_all_elements_stands_for_a_shaped_field() -> None:
    found, told = decode(pa.array([[1, 2, 3, 4], [1, 2, 3]]), type="float32", shape=[2, 2])
    assert found.tolist() == [[[1, 2], [3, 4]]]
    assert told == ["1: x: 3 elements at depth 1, shape [2, 2] was expected"]


def test_keys_are_refused_when_nothing_could_be_found_by_them() -> None:
    keys = ["a", "", None, "b\0", "k" * (MAX_KEY_BYTES + 1)]
    batch = pa.RecordBatch.from_pydict({"id": keys, "x": [1.0] * 5})
    records, rejects = Decoder(contract()).decode(batch, np.arange(10, 15))
    assert records.keys.tolist() == ["a"]
    assert [(r.row, r.key, r.field, r.reason) for r in rejects] == [
        (11, None, "id", "missing"),
        (12, None, "id", "missing"),
        (13, None, "id", "holds a NUL character"),
        (14, None, "id", "longer than 1024 bytes"),
    ]


def test_the_first_fault_in_the_contracts_order_is_told() -> None:
    inputs = ({"name": "b", "type": "int8"}, {"name": "a", "type": "int8"})
    batch = pa.RecordBatch.from_pydict({"id": [7], "a": [None], "b": [None]})
    _, rejects = Decoder(contract(*inputs, key="int64")).decode(batch, np.array([3]))
    assert rejects == [Reject(3, "7", "b", "missing")]


def test_an_absent_column_is_missing_in_every_record() -> None:
    batch = pa.RecordBatch.from_pydict({"id": ["a", "b"]})
    records, rejects = Decoder(contract()).decode(batch, np.arange(2))
    assert (len(records), [str(reject) for reject in rejects]) == (0, ["x: missing"] * 2)


def test_columns_that_are_numpy_already_are_held_to_the_same_rules() -> None:
    inputs = (
        {"name": "n", "type": "int8", "range": {"max": 9}},
        {"name": "s", "type": "string"},
        {"name": "v", "type": "float32", "shape": [2]},
    )
    columns = {
        "n": np.array([1, 300, 10, 2]),
        "s": np.array(["a", "b", "c", 4], object),
        "v": np.array([[1, 2]] * 3 + [[1, np.inf]]),
    }
    records, rejects = Decoder(contract(*inputs)).check(
        np.array(["a", "b", "c", "d"], object), columns, np.arange(4)
    )
    assert records.columns["v"].dtype == np.float32
    assert records.keys.tolist() == ["a"]
    assert [str(reject) for reject in rejects] == [
        "n: 300 is outside int8 (-128 to 127)",
        "n: 10 is above 9",
        "s: '4' is not text",
    ]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "input x is missing; found none"),
        ({"x": np.zeros((1, 2))}, r"shape \[1, 2\], \[1\] was"),
    ],
)
def test_numpy_columns_of_another_shape_are_no_source(columns: Any, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        Decoder(contract()).check(np.array(["a"], object), columns, np.arange(1))


@pytest.mark.parametrize(
    ("kind", "shape", "found", "fits"),
    [
        ("float32", (), pa.int64(), True),
        ("int8", (), pa.float64(), True),
        ("int8", (), pa.decimal128(5, 2), True),
        ("int8", (), pa.string(), False),
        ("int8", (), pa.bool_(), False),
        ("string", (), pa.int64(), False),
        ("string", (), pa.large_string(), True),
        ("bool", (), pa.int8(), False),
        ("float32", (3,), pa.list_(pa.float32()), True),
        ("float32", (3,), pa.float32(), False),
        ("float32", (2, 3), pa.list_(pa.float32()), True),
        ("float32", (2, 3, 4), pa.list_(pa.list_(pa.float32())), False),
        ("float32", (), pa.timestamp("us"), False),
    ],
)
def test_which_column_types_stand_for_which_fields(
    kind: str, shape: tuple[int, ...], found: Any, fits: bool
) -> None:
    assert accepts(kind, shape, found) is fits


@pytest.mark.parametrize(
    ("shape", "dimensions", "fits"),
    [
        ((), (None,), (1,)),
        ((), (1,), (1,)),
        ((), (), ()),
        ((), (2,), None),
        ((3,), (None,), (3,)),
        ((3,), (1, 3), (1, 3)),
        ((1, 28, 28), (None, 28, 28), (1, 28, 28)),
        ((28, 28), (1, 28, 28), (1, 28, 28)),
        ((4,), (2, 2), None),
        ((3,), (), None),
        ((1,), (), ()),
    ],
)
def test_shapes_fit_when_only_ones_come_and_go(shape: Any, dimensions: Any, fits: Any) -> None:
    assert fitted(shape, dimensions) == fits


NUMBERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
KINDS = st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])


@settings(max_examples=25, deadline=None)
@given(st.lists(NUMBERS, max_size=30), KINDS)
def test_whole_numbers_survive_exactly_or_are_refused(values: list[int | None], kind: str) -> None:
    limits = np.iinfo(kind)
    kept = [v for v in values if v is not None and limits.min <= v <= limits.max]
    for column in (
        pa.array(values, pa.int64()),
        pa.array([None if v is None else str(v) for v in values], pa.string()),
    ):
        found, told = decode(column, type=kind)
        assert found.tolist() == kept
        assert len(told) == len(values) - len(kept)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=30), st.booleans())
def test_floats_are_rounded_once_or_refused(values: list[float | None], nullable: bool) -> None:
    with np.errstate(over="ignore"):
        cast = [np.nan if v is None else np.float32(v) for v in values]
    kept = [v for v in cast if np.isfinite(v) or (nullable and np.isnan(v))]
    found, _ = decode(pa.array(values, pa.float64()), type="float32", nullable=nullable)
    np.testing.assert_array_equal(found, np.array(kept, np.float32))


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=20))
def test_any_text_is_decoded_or_told_and_never_raised_at(texts: list[str]) -> None:
    for kind in ("float64", "int64", "bool", "string"):
        decode(
            pa.array([text.encode("utf-8", "replace") for text in texts], pa.binary()), type=kind
        )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_row_comes_back_once_in_order(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=25))
    batch = pa.RecordBatch.from_pydict(
        {
            "id": pa.array([a for a, _ in rows], pa.int64()),
            "x": pa.array([b for _, b in rows], pa.int64()),
        }
    )
    decoder = Decoder(contract({"name": "x", "type": "int16"}, key="int64"))
    records, rejects = decoder.decode(batch, np.arange(100, 100 + len(rows)))
    assert isinstance(records, Records)
    assert sorted([*records.rows.tolist(), *(reject.row for reject in rejects)]) == list(
        range(100, 100 + len(rows))
    )
    for key, row, value in zip(records.keys, records.rows, records.columns["x"], strict=True):
        assert rows[row - 100] == (key, value)
