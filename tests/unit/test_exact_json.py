"""Integers of JSON keep all their digits, whoever reads them: exact, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from fourways_runtime.scoring import exact_json
from tests.kit.serving_plane import MIXED, configure, mixed, serving

LONG = 10**20
ROW = '{"name":"word","datatype":"BYTES","shape":[1],"data":["a"]}'
ROW += ',{"name":"flag","datatype":"BOOL","shape":[1],"data":[true]}'
ROW += ',{"name":"big","datatype":"UINT64","shape":[1],"data":[1]}'


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "[1.5, 100000000000000000001, 2]",
        '{"a": [[-100000000000000000001]], "100000000000000000001": "100000000000000000001"}',
        "[100000000000000000001.0, 100000000000000000001e0, 0.100000000000000000001]",
        "[1e20, 1E25, 0.00001234567890123456789]",
    ],
)
def test_integers_of_any_length_are_what_python_makes_of_them(text: str) -> None:
    found = exact_json.loads(text)
    assert found == json.loads(text)
    assert str(found) == str(json.loads(text))
    assert exact_json.loads(exact_json.dumps(found)) == found


def test_what_is_not_json_is_refused_as_before() -> None:
    for text in (b"[100000000000000000001", b"1" * 400, b'"\\ud800" 100000000000000000001'):
        with pytest.raises(orjson.JSONDecodeError):
            exact_json.loads(text)
    deep = b"[" * 1000 + b"100000000000000000001" + b"]" * 1000
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(deep)


@pytest.mark.parametrize("blanks", [0, 150_000], ids=["small", "read in slices"])
async def test_a_request_is_answered_exactly_or_refused(tmp_path: Path, blanks: int) -> None:
    config = configure(tmp_path, mixed(), MIXED, timeoutSeconds=30)
    async with serving(config) as plane:

        async def infer(number: int, version: int) -> tuple[int, str]:
            grid = f"[[{number},1.5],[2,3]]" + " " * blanks
            if version == 2:
                one = f'{{"name":"grid","datatype":"FP64","shape":[1,2,2],"data":[{grid}]}}'
                path, body = "/v2/models/churn/infer", f'{{"inputs":[{ROW},{one}]}}'
            else:
                row = f'{{"word":"a","flag":true,"big":1,"grid":{grid}}}'
                path, body = "/v1/models/churn:predict", f'{{"instances":[{row}]}}'
            answer = await plane.client.post(path, content=body)
            return answer.status_code, answer.text

        for version in (1, 2):
            status, text = await infer(LONG, version)
            assert status == 200, text
            assert "1e+20" in text or "1e20" in text or str(LONG) in text
            status, text = await infer(LONG + 1, version)
            assert status == 400, text
            assert f"{LONG + 1} would be rounded in float64" in json.loads(text)["error"]
