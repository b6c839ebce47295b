"""A lone request of one record: the same answer as on the ordinary way, or that way is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fourways_api import Contract
from fourways_http import Request
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.v2.lone import LoneScorer
from fourways_runtime.v2.parts import RequestOutcome, ScoredPart
from fourways_runtime.v2.request import InferenceRequest, RequestReader
from fourways_runtime.v2.scorer import RequestScorer
from fourways_runtime.v2.templates import RequestTemplates, UnparsedRequest
from tests.kit.models import Function

NAMES = ("a", "b", "c")


def contract(kind: str = "float32", **output: Any) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [
                {"name": "a", "type": kind, "range": {"min": -0.1, "max": 0.3}},
                {"name": "b", "type": kind, "range": {"max": 1e30}},
                {"name": "c", "type": kind, "nullable": True},
            ],
            "outputs": [
                {"name": "y", "type": kind, "range": {"min": -0.1, "max": 1e30}},
                {"name": "z", "type": kind, "tensor": "two", "column": 1, **output},
            ],
        }
    )


class Echo(Function):
    """Answers the second column, and the other two; its columns have another order than fields."""

    def __init__(self, kind: str = "float32", answered: str | None = None) -> None:
        self.calls = 0
        super().__init__(
            (Tensor("x", kind, (None, 3), columns=("c", "a", "b")),),
            (Tensor("y", kind, (None, 1)), Tensor("two", kind, (None, 2))),
            lambda tensors: self._echoed(tensors["x"].astype(answered or kind)),
        )

    def _echoed(self, x: Any) -> dict[str, Any]:
        self.calls += 1
        return {"y": x[:, 2:], "two": x[:, 1::-1].copy()}


def unparsed(numbers: str, kind: str = "float32") -> UnparsedRequest | InferenceRequest:
    """Return a request with a known envelope; what is in its list is not looked at yet."""
    templates = RequestTemplates(RequestReader(contract(kind), ["x"], 8))
    datatype = {"float32": "FP32", "float64": "FP64"}[kind]
    for data in ("0.1, 0.2, 0.3", "0.1, 0.2, 0.3", numbers):
        tensor = f'{{"name":"x","shape":[1,3],"datatype":"{datatype}","data":[{data}]}}'
        taken = templates.take(Request(b"POST", b"/", [], b'{"inputs":[%b]}' % tensor.encode()))
    return taken


def outcome(scorer: RequestScorer, asked: UnparsedRequest | InferenceRequest) -> Any:
    (found,) = scorer.score([asked])
    return told(found)


def told(found: RequestOutcome) -> Any:
    if not isinstance(found, ScoredPart):
        return type(found), str(found)
    return {
        name: (str(values.dtype), values[found.start : found.stop].tobytes())
        for name, values in found.columns.items()
    }


SPECIAL = (
    "-0.1 0.3 0.30000001 0.300000012 -0.10000000149 1e30 1.0000001e30 16777215 16777216 16777217"
    ' 1e39 -0 1e-50 0.1e 00 NaN null true false "0.1" {} {"q":1}'
)
NUMBERS = st.one_of(
    st.sampled_from([*SPECIAL.split(), "", "9" * 30, "9" * 400]),
    st.floats(-0.2, 0.4).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@pytest.mark.thorough
@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=5))
@example(["0.1", "0.2", "0.3", "0.4"])
@example(["0.1", "0.2"])
@example(["0.1", "0.2", "null"])
@example(["true", "0.2", "0.3"])
def test_any_list_gets_the_outcome_of_the_ordinary_way(numbers: list[str]) -> None:
    model = Echo()
    ours, plain = (RequestScorer(contract(), model, 8) for _ in range(2))
    assert ours._lone is not None
    plain._lone = None
    asked = None
    try:
        asked = unparsed(", ".join(numbers))
    except Exception:  # noqa: BLE001  (the reader refused it)
        return
    assert outcome(ours, asked) == outcome(plain, asked)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(
    ("numbers", "lone"),
    [
        ("0.1, 2, -3e5", True),
        ("0.25, 16777215, 0", True),
        ("0.31, 2, 3", False),  # a is above its maximum
        ("0.1, 2, null", False),
        ("0.1, 2", False),
        ("0.1, 2, 3, 4", False),
        ("true, 2, 3", False),
        ("0.1, -0.2, 3", False),  # the model's answer is below its minimum
    ],
)
def test_only_what_needs_no_further_look_is_answered(kind: str, numbers: str, lone: bool) -> None:
    scorer = LoneScorer.of(contract(kind), Echo(kind))
    assert scorer is not None
    found = scorer.score(unparsed(numbers, kind))
    assert (found is not None) is lone
    if found is not None:
        _, b, c = orjson.loads(f"[{numbers}]")
        assert found["y"].tolist() == [np.dtype(kind).type(b)]
        assert found["z"].tolist() == [np.dtype(kind).type(c)]


def test_a_binary_record_is_held_to_the_limits_of_its_type() -> None:
    scorer = LoneScorer.of(contract(), Echo())
    assert scorer is not None

    def score(*values: float, kind: str = "float32") -> Any:
        block = np.array([values], kind)
        return scorer.score(InferenceRequest(1, None, None, True, None, block, {}))

    assert score(0.1, 2**25, 0)["y"].tolist() == [2**25]
    assert score(float(np.float32(0.3)), 2, 3) is not None
    assert score(0.31, 2, 3) is None
    assert score(0.1, 2, np.nan) is None
    assert score(0.1, 2, 3, kind="float64") is None


def test_a_model_that_answers_otherwise_than_declared_is_not_called_twice_for_each_request() -> (
    None
):
    model = Echo(answered="float64")
    scorer = RequestScorer(contract(), model, 8)
    asked = unparsed("0.1, 2, 3")
    counts = []
    for _ in range(3):
        before = model.calls
        assert isinstance(scorer.score([asked])[0], ScoredPart)
        counts.append(model.calls - before)
    assert counts == [2, 1, 1]


@pytest.mark.parametrize(
    "model",
    [
        Function((), (), lambda tensors: {}),
        Function(Echo().inputs, (), lambda tensors: {}),
        Function((Tensor("x", "float64", (None, 3)),), Echo().outputs, lambda tensors: {}),
        Function((*Echo().inputs, Tensor("q", "float32", (None,))), (), lambda tensors: {}),
        Function(Echo().inputs, Echo("float64").outputs, lambda tensors: {}),
    ],
)
def test_a_model_that_declares_less_or_something_else_takes_the_ordinary_way(model: Any) -> None:
    assert LoneScorer.of(contract(), model) is None


def test_outputs_that_need_a_conversion_take_the_ordinary_way() -> None:
    assert LoneScorer.of(contract(column=None, reduce="Max"), Echo()) is None
    assert LoneScorer.of(contract(column=2), Echo()) is None
    whole = contract().model_copy(
        update={"outputs": (contract().outputs[0].model_copy(update={"type": "int32"}),)}
    )
    assert LoneScorer.of(whole, Echo()) is None
