"""Lists of JSON numbers come out the same from both libraries, or from neither."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from fourways_runtime.scoring.columns import Array
from fourways_runtime.v2 import numbers
from fourways_runtime.v2.numbers import Numbers

KINDS = ("float32", "float64")
TEXTS = (
    "0",
    "-0",
    "-0.0",
    "1",
    "1.5",
    "-2e3",
    "1E-7",
    "0.1",
    "1e-400",
    "3.4028235e38",
    "3.5e38",
    "1e308",
    "1e309",
    "16777217",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1" * 400,
    "0.1234567890123456789",
)
NO_NUMBERS = (
    "true",
    "false",
    "null",
    '"1"',
    "",
    " ",
    "01",
    "1.",
    ".5",
    "+1",
    "1e",
    "NaN",
    "Infinity",
    "{}",
    '"a',
    '{"a":1}',
    "1 2",
    "1,",
    "--1",
    "0x1",
    "1;2",
)


def both(lists: Sequence[bytes], sizes: list[int], kind: str) -> Array | None:
    """Read with both; what they make of it must be the same to the bit."""
    quick, plain = Numbers(np.dtype(kind)), Numbers(np.dtype(kind))
    assert quick._parser is not None, "this interpreter has a wheel"
    plain._parser = None
    one, other = quick.read(lists, sizes), plain.read(lists, sizes)
    if one is not None and other is None:
        assert np.isinf(one).any(), "struct has no room for it"
        return None
    if one is None or other is None:
        return other  # What simdjson leaves to others is right too: whole numbers of any length.
    assert one.dtype == other.dtype == kind
    np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
    return one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_number_is_what_python_makes_of_it(kind: str, text: str) -> None:
    found = both([b"1," + text.encode()], [2], kind)
    if found is not None:
        assert found[1] == np.array(float(text)).astype(kind)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_left_to_others(text: str) -> None:
    for given in ([b"1,2", text.encode()], [text.encode(), b"1,2"]):
        for sizes in ([2, 1], [1, 2], [2, 2]):
            assert both(given, sizes, "float32") is None


def test_lists_are_told_apart() -> None:
    assert both([b"1,2", b"3"], [2, 1], "float32") is not None
    assert both([b"1,2", b"3"], [1, 2], "float32") is None
    assert both([b"1,2,3"], [2], "float32") is None
    assert both([b'1,"', b'",2'], [2, 2], "float32") is None


@pytest.mark.parametrize("kind", KINDS)
def test_many_numbers_of_any_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    sizes = [rng.randrange(1, 400) for _ in range(60)]
    values = [[rng.gauss(0, 10 ** rng.randrange(-9, 9)) for _ in range(size)] for size in sizes]
    lists = [",".join(map(repr, some)).encode() for some in values]
    found = both(lists, sizes, kind)
    assert found is not None
    np.testing.assert_array_equal(found, np.concatenate(values).astype(kind))
    monkeypatch.setattr(numbers, "_MAX_BYTES", 1000)
    np.testing.assert_array_equal(both(lists, sizes, kind), found)


def test_a_parser_that_is_at_work_elsewhere_takes_nothing_more() -> None:
    reader = Numbers(np.dtype("float32"))
    at_work = reader._parser.parse(b"[1,2]")
    assert reader.read([b"3,4"], [2]) is None
    assert bytes(at_work.as_buffer(of_type="d")) == np.array([1.0, 2.0]).tobytes()
    del at_work
    assert reader.read([b"3,4"], [2]) is not None
