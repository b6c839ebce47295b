"""Events become answers or get the reason why not, the same alone as in company."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.workloads.streaming.scoring import EventScorer, ScoredEvents


class Sums:
    """A model: y is the sum of all inputs; it fails on the sum 13."""

    def __init__(self, *inputs: Tensor) -> None:
        self.inputs = inputs
        self.outputs = (Tensor("y", "float64", (None,)),)

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        total = sum(
            values.reshape(len(values), -1).astype(np.float64).sum(axis=1)
            for values in tensors.values()
            if values.dtype != object
        )
        return {"y": np.asarray(total, np.float64)}


def scorer(inputs: list[dict[str, Any]], *tensors: Tensor, key: str = "string") -> EventScorer:
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": key},
            "inputs": inputs,
            "outputs": [{"name": "y", "type": "float64"}],
        }
    )
    model = Sums(*tensors)
    return EventScorer(contract, model, Pipeline(contract, model), 64)


def plain(key: str = "string") -> EventScorer:
    fields: list[dict[str, Any]] = [
        {"name": "a", "type": "float32", "range": {"min": -100}},
        {"name": "b", "type": "float32"},
    ]
    return scorer(fields, Tensor("x", "float32", (None, 2)), key=key)


def mixed() -> EventScorer:
    fields: list[dict[str, Any]] = [
        {"name": "v", "type": "float32", "shape": [2]},
        {"name": "n", "type": "int16"},
        {"name": "flag", "type": "bool"},
        {"name": "word", "type": "string", "categories": ["up", "down"]},
        {"name": "f", "type": "float64", "nullable": True},
    ]
    return scorer(
        fields,
        Tensor("v", "float32", (None, 2)),
        Tensor("n", "int16", (None,)),
        Tensor("flag", "bool", (None,)),
        Tensor("word", "string", (None,)),
        Tensor("f", "float64", (None,)),
    )


def events(values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None) -> Events:
    count = len(values)
    keys = keys or [f"k{at}".encode() for at in range(count)]
    return Events([0] * count, range(count), keys, values, lambda at: ())


def answers(outcome: ScoredEvents) -> dict[Any, float]:
    found = outcome.predictions
    return dict(zip(found.keys.tolist(), found.columns["y"].tolist(), strict=True))


def test_plain_events_go_through_as_one_matrix_and_ignore_what_they_do_not_need() -> None:
    given = events([b'{"a": 1.5, "b": 2, "id": "x", "more": []}', b'{"b": 0.25, "a": 1}'])
    outcome = plain().score(given)
    assert answers(outcome) == {"x": 3.5, "k1": 1.25}
    assert outcome.refusals == {}
    assert outcome.predictions.rows.tolist() == [0, 1]


POISON: list[tuple[bytes | None, str]] = [
    (b'{"a": 1, "b": ', "event: it is not JSON: unexpected end of data"),
    (b'{"a": NaN, "b": 1}', "event: it is not JSON: unexpected character, expected a JSON value"),
    (b"\xff\xfe", "event: it is not JSON: str is not valid UTF-8"),
    (b"", "event: it is not JSON: it is empty"),
    (b"[1, 2]", "event: it is not a JSON object"),
    (b'{"a": 1}', "b: missing"),
    (b'{"a": 1, "b": null}', "b: missing"),
    (b'{"a": 1, "b": "2"}', "b: '2' is not a number"),
    (b'{"a": true, "b": 2}', "a: true is not a number"),
    (b'{"a": [1, 2], "b": 2}', "a: a list is not a number"),
    (b'{"a": {}, "b": 2}', "a: an object is not a number"),
    (b'{"a": -101, "b": 2}', "a: -101 is below -100"),
    (b'{"a": 1e300, "b": 2}', "a: 1e+300 does not fit float32"),
    (b'{"a": 16777217, "b": 2}', "a: 16777217 would be rounded in float32"),
    (b'{"a": 1, "b": 2, "id": ""}', "id: missing"),
    (b'{"a": 1, "b": 2, "id": 7}', "id: 7 is not text"),
    (b'{"a": 1, "b": 2, "id": "x\\u0000"}', "id: holds a NUL character"),
]


@pytest.mark.parametrize(("value", "reason"), POISON)
def test_a_bad_event_is_refused_with_its_reason_alone_and_in_company(
    value: bytes | None, reason: str
) -> None:
    assert plain().score(events([value])).refusals == {0: reason}
    good = b'{"a": 1.5, "b": 2.5}'
    outcome = plain().score(events([good, value, good]))
    assert outcome.refusals == {1: reason}
    assert answers(outcome) == {"k0": 4.0, "k2": 4.0}
    assert outcome.predictions.rows.tolist() == [0, 2]


def test_all_kinds_of_poison_together_leave_the_good_ones_alone() -> None:
    values = [value for value, _ in POISON]
    good = b'{"a": 1.5, "b": 2.5}'
    outcome = plain().score(events([good, *values, good]))
    assert outcome.refusals == {at + 1: reason for at, (_, reason) in enumerate(POISON)}
    assert answers(outcome) == {"k0": 4.0, f"k{len(values) + 1}": 4.0}


def test_an_event_without_any_key_is_refused() -> None:
    given = events([b'{"a": 1, "b": 2}'] * 3, [None, b"\xff", b"k"])
    outcome = plain().score(given)
    assert outcome.refusals == {0: "id: missing", 1: "id: missing"}
    assert answers(outcome) == {"k": 3.0}


def test_whole_keys_come_from_the_event_or_as_text_from_the_broker() -> None:
    given = events(
        [
            b'{"a": 1, "b": 2, "id": 5}',
            b'{"a": 1, "b": 3}',
            b'{"a": 1, "b": 2}',
            b'{"a": 1, "b": 2, "id": "5"}',
        ],
        [None, b"-7", b"seven", None],
    )
    outcome = plain("int64").score(given)
    assert answers(outcome) == {5: 3.0, -7: 4.0}
    assert outcome.refusals == {
        2: "id: 'seven' is not a whole number",
        3: "id: '5' is not a whole number",
    }
    assert answers(plain("int64").score(events([b'{"a": 1, "b": 2, "id": 5}']))) == {5: 3.0}


MIXED = b'{"v": [1, 2], "n": 3, "flag": true, "word": "up", "f": 0.5}'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"[1, 2]", b"[1]"), "v: 1 elements at depth 1, shape [2] was expected"),
        ((b"[1, 2]", b"[[1, 2]]"), "v: 1 elements at depth 1, shape [2] was expected"),
        ((b"[1, 2]", b'[1, "x"]'), "v: element [1]: 'x' is not a number"),
        ((b"[1, 2]", b"3"), "v: 3 is not a list of float32 of shape [2]"),
        ((b'"n": 3', b'"n": 3.5'), "n: 3.5 is not a whole number"),
        ((b'"n": 3', b'"n": 99999'), "n: 99999 is outside int16 (-32768 to 32767)"),
        ((b'"n": 3', b'"n": 18446744073709551615'), "n: 18446744073709551615 is outside int16"),
        ((b"true", b"1"), "flag: 1 is not true or false"),
        ((b"up", b"left"), "word: 'left' is not one of up, down"),
    ],
)
def test_fields_of_every_kind_are_held_to_the_contract(
    change: tuple[bytes, bytes], reason: str
) -> None:
    bad = MIXED.replace(*change)
    alone = mixed().score(events([bad])).refusals
    assert alone[0].startswith(reason)
    outcome = mixed().score(events([MIXED, bad, MIXED.replace(b'"n": 3', b'"n": -4')]))
    assert outcome.refusals == {1: alone[0]}
    assert answers(outcome) == {"k0": 7.5, "k2": 0.5}


def test_no_event_can_stand_for_another() -> None:
    # Joined by commas these three would be three other documents.
    given = events([b'{"a":1,"b":1},{"a":2,"b":2}', b'{"a":9,"b":9,"c":[{}', b"{}]}"])
    assert set(plain().score(given).refusals) == {0, 1, 2}


def test_a_tombstone_deletes_the_answer_of_its_key_unless_an_event_follows() -> None:
    good = b'{"a": 1.5, "b": 2.5}'
    given = events([good, good, None, None, good], [b"x", b"y", b"x", b"z", b"z"])
    outcome = plain().score(given)
    assert answers(outcome) == {"y": 4.0, "z": 4.0}
    assert outcome.predictions.rows.tolist() == [1, 4]
    assert outcome.deleted == ("x",)
    assert outcome.refusals == {}


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\0b", b"k" * 1025])
def test_a_tombstone_without_a_key_is_refused(key: bytes | None) -> None:
    outcome = plain().score(events([None], [key]))
    assert outcome.refusals == {0: "id: a tombstone without a valid key"}
    assert outcome.deleted == ()


def test_a_key_of_the_broker_may_be_any_int64() -> None:
    record = b'{"a": 1, "b": 2}'
    keys = [b"1234567890123456789", b"9223372036854775807", b"-9223372036854775808"]
    outcome = plain("int64").score(events([record] * 3, keys))
    assert answers(outcome) == {int(key): 3.0 for key in keys}
    outside = [b"9223372036854775808", b"-9223372036854775809", b"1" * 20]
    outcome = plain("int64").score(events([record, record, record, None], [*outside, outside[0]]))
    assert sorted(outcome.refusals) == [0, 1, 2, 3]
    assert (answers(outcome), outcome.deleted) == ({}, ())
