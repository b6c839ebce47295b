"""The fast ways through the server say what the slow ones say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourways_http import Promise, Response
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import LINEAR, linear

FLOATS: dict[str, Any] = {
    **LINEAR,
    "inputs": [
        {"name": "a", "type": "float32", "range": {"min": 0.1}},
        {"name": "b", "type": "float32", "nullable": True},
        {"name": "c", "type": "float32"},
    ],
}


async def test_the_plainest_request_is_answered_as_any_other(tmp_path: Path) -> None:
    good = tensor("input", "FP32", [1, 2, 3], [1, 3])
    requests: list[Any] = [
        good,
        tensor("x", "FP32", [1, 2.5, -3, 0.1, 1e-3, 7], [2, 3]),
        *(
            good | {"data": data}
            for data in (
                [1, 2, True],
                [1, None, 3],
                [None, 2, 3],
                [0.05, 2, 3],
                [1, 2, 1e39],
                [1, 2, 10**400],
                [1, 2, "3"],
                [1, 2],
                "123",
                {"a": 1, "b": 2, "c": 3},
                [[1, 2, 3]],
                None,
                [1, 2, [3]],
            )
        ),
        *(good | {"shape": shape} for shape in ([3], [1, 4], [1.0, 3], [True, 3], [0, 3], "13")),
        good | {"name": ["input"]},
        good | {"name": "y"},
        good | {"datatype": "FP64"},
        good | {"more": 1},
        {},
        [],
        None,
    ]
    async with serving(configure(tmp_path, linear(), FLOATS, maxBatchRows=4)) as plane:
        for asked in requests:
            plain = await plane.infer(asked)
            other = await plane.infer(asked, id="r")
            assert plain.status_code == other.status_code, (asked, plain.text)
            if plain.status_code == 200:
                assert {**plain.json(), "id": "r"} == other.json()
            else:
                assert plain.json() == other.json()
        for body in (b"[]", b'{"inputs": 3}', b'{"inputs": []}', b"3", b'"inputs"', b"{}"):
            answer = await plane.client.post("/v2/models/churn/infer", content=body)
            assert answer.status_code == 400, body


async def test_a_promise_tells_at_once_and_can_be_awaited() -> None:
    told: list[object] = []
    promise, answer = Promise(), Response(b"1")
    promise.then(lambda *settled: told.append(settled))
    promise.set_result(answer)
    promise.set_exception(ValueError("late"))
    assert told == [(answer, None)]
    assert (await promise).body == b"1"
    broken = Promise()
    broken.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await broken
