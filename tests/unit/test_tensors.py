"""JSON data as arrays: exact or refused, in slices as at once, and no dearer where it is bad."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourways_runtime.scoring import tensors

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**24, 2**24 + 1, 2**53, 2**53 + 1, -(2**63), 2**63, 2**64 - 1, 2**64]),
    st.floats(),
    st.sampled_from([16777217.0, 9007199254740993.0, -9223372036854775808.0, 1e300, 3.0]),
)


def judged(kind: str, nullable: bool, value: Any) -> bool:
    """Say whether a value is to be taken, by the rules and nothing else."""
    if value is None:
        return kind[0] == "f" and nullable
    if type(value) not in (int, float):
        return False
    if kind[0] == "f":
        if type(value) is int:
            cast = np.dtype(kind).type(value) if abs(value) < 2**1000 else math.inf
            return bool(np.isfinite(cast)) and int(cast) == value
        with np.errstate(over="ignore"):
            return not math.isfinite(value) or bool(np.isfinite(np.dtype(kind).type(value)))
    if type(value) is float and (value != value or math.isinf(value) or abs(value) >= 2**53):
        return False
    limits = np.iinfo(kind)
    return value == int(value) and limits.min <= int(value) <= limits.max


@pytest.mark.parametrize("kind", ["float32", "float64", "int8", "int64", "uint64"])
@given(data=st.lists(VALUES, min_size=1, max_size=12), nullable=st.booleans())
def test_a_value_is_taken_exactly_or_refused(kind: str, data: list[Any], nullable: bool) -> None:
    values, faults = tensors.from_json(kind, nullable, data, (len(data),), False)
    assert set(faults) == {at for at, v in enumerate(data) if not judged(kind, nullable, v)}
    for at, value in enumerate(data):
        if at in faults:
            continue
        if value is None or value != value:
            assert math.isnan(values[at])
        elif type(value) is int or kind[0] != "f":
            assert int(values[at]) == int(value)


@pytest.mark.parametrize("kind", ["float32", "int64", "bool", "string"])
@pytest.mark.parametrize("bad", ["", None, True, 1.5, 2**70])
def test_slices_and_the_whole_are_judged_alike(
    kind: str, bad: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good: Any = {"bool": False, "string": "a"}.get(kind, 7)
    data = [bad if at % 5 == 3 else good for at in range(60)]
    whole = tensors.from_json(kind, False, data, (12, 5), False)
    monkeypatch.setattr(tensors, "SLICE", 7)
    sliced = tensors.from_json(kind, False, data, (12, 5), False)
    assert whole[1] == sliced[1]
    good_rows = [row for row in range(12) if not any(at // 5 == row for at in whole[1])]
    first, second = (each[0].reshape(12, 5)[good_rows].tolist() for each in (whole, sliced))
    assert first == second


def test_of_a_record_with_many_faults_the_first_is_worded() -> None:
    _, faults = tensors.from_json("float32", False, [""] * 20_000, (10, 2000), False)
    assert list(faults) == list(range(0, 20_000, 2000))
