"""Requests whose envelope is known are answered as if each were read by itself, in full."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_http import HttpError, Request, Response
from fourways_runtime.v2 import numbers
from fourways_runtime.v2.body import BINARY_HEADER
from fourways_runtime.v2.parts import ScoredPart
from fourways_runtime.v2.request import RequestReader
from fourways_runtime.v2.templates import RequestTemplates, UnparsedRequest
from fourways_runtime.workloads.serving.loading import Loaded, load_model
from tests.kit.serving_plane import configure
from tools.kit.models import LINEAR, linear

FLOATS: dict[str, Any] = {
    **LINEAR,
    "inputs": [
        {"name": "a", "type": "float32", "range": {"min": 0.1, "max": 50}},
        {"name": "b", "type": "float32", "nullable": True},
        {"name": "c", "type": "float32"},
    ],
}
ONE = '{"inputs":[{"name":"input","shape":[%d,3],"datatype":"FP32","data":[%s]}]}'
EACH = '{"inputs":[%s]}'
TENSOR = '{"name":"%s","shape":[1],"datatype":"FP32","data":[%s]}'
GOOD = ("1,2,3", "1.5,-2e3,0.25", " 7 ,8 , 9", "0.1,1e-40,16777217", "50,0,-0.0")
BAD = (
    "0.05,2,3",
    "1,2,1e39",
    "1,2,true",
    "1,2,null",
    "1,null,3",
    "null,2,3",
    '1,2,"3"',
    "1,2",
    "1,2,3,4",
    '1,2,"a',
    'b",2,3',
    "1,2,",
    ",1,2",
    "1 2,3",
    "1,2,3}",
    "1,{},3",
    "",
    " ",
    "1,2,nan",
    "1,2,3]",
    "[1,2,3]",
    "1,2,3],[4,5,6",
    "01,2,3",
    "1,2,9" + "9" * 400,
    "1,2," + " " * 99 + "3",
    "1,2,3.40282356e38",
    "1,2,3.5e38",
)
Answer = tuple[int, bytes, tuple[bytes, ...]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, RequestReader]:
    config = configure(tmp_path_factory.mktemp("model"), linear(), FLOATS, maxBatchRows=64)
    return load_model(config), RequestReader(config.contract, ["x"], 64)


@pytest.fixture(params=["simdjson", "orjson"])
def loaded(
    model: tuple[Loaded, RequestReader],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Loaded:
    """The model, with no templates known, on an interpreter with and without simdjson."""
    if request.param == "orjson":
        monkeypatch.setattr(numbers, "_parser", lambda: None)
    return replace(model[0], reader=RequestTemplates(model[1]))


def post(body: bytes, length: int | None = None) -> Request:
    headers = [] if length is None else [(BINARY_HEADER, b"%d" % length)]
    return Request(b"POST", b"/", headers, body)


def told(error: Exception) -> Answer:
    assert isinstance(error, HttpError), error
    return error.response.status, error.response.body, error.response.headers


def answers(loaded: Loaded, asked: Sequence[Any]) -> list[Answer]:
    """Score together what was taken, and return what each request is answered."""
    taken = [one for one in asked if not isinstance(one, Exception)]
    outcomes = iter(loaded.scorer.score(taken) if taken else ())
    said = []
    for one in asked:
        outcome = one if isinstance(one, Exception) else next(outcomes)
        if isinstance(outcome, ScoredPart):
            response: Response = loaded.renderer(one, outcome)
            said.append((response.status, response.body, response.headers))
        else:
            said.append(told(outcome))
    return said


def attempt(read: Any, request: Request) -> Any:
    try:
        return read(request)
    except HttpError as error:
        return error


def same(loaded: Loaded, requests: Sequence[Request]) -> list[Any]:
    """See that known templates change nothing; return what was taken."""
    taken = [attempt(loaded.reader.take, request) for request in requests]
    alone = [answers(loaded, [attempt(loaded.reader.read, request)])[0] for request in requests]
    assert answers(loaded, taken) == alone
    return taken


@pytest.mark.parametrize("seed", range(30))
def test_numbers_of_a_batch_are_read_as_each_by_itself(loaded: Loaded, seed: int) -> None:
    rng = random.Random(seed)
    same(loaded, [post((ONE % (rows, ",".join(["1,2,3"] * rows))).encode()) for rows in (1, 2)])
    plain = 0
    for bad in (0.0, 0.0, 0.1, 0.5):
        requests = []
        for _ in range(rng.randrange(1, 9)):
            texts = BAD if rng.random() < bad else GOOD
            rows = rng.choice((1, 1, 2))
            requests.append(post((ONE % (rows, ",".join(rng.choices(texts, k=rows)))).encode()))
        taken = same(loaded, requests)
        plain += sum(type(one) is UnparsedRequest for one in taken)
    assert plain


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_plain_number_is_told_in_the_same_words(loaded: Loaded, text: str) -> None:
    good = [post((ONE % (1, "1,2,3")).encode())] * 2
    same(loaded, good)
    same(loaded, [*good, post((ONE % (1, text)).encode()), *good])


@pytest.mark.parametrize(
    "envelope",
    [
        '{"inputs":[{"data":[%s],"name":"input","shape":[1,3],"datatype":"FP32"}]}',
        '{"inputs":[{"name":"input","datatype":"FP32","data":[%s],"shape":[1,3]}]}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[[%s]]}]}',
        '{ "inputs" : [ {"name":"x","shape":[1, 3],"datatype":"FP32","data": [ %s ] } ] }',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP64","data":[%s]}]}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[%s]}],"id":"r"}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[%s]}],'
        '"parameters":{"entity_keys":["k"]}}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[%s]}],'
        '"parameters":{"note":"[1,2,3]"}}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[%s],"a":["["],"b":"]"}]}',
        '{"a":[9,9],"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[%s]}]}',
        '{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[8],"data":[%s]}]}',
        '{"inputs":[{"name":"input","shape":[2,3],"datatype":"FP32","data":[[4,5,6],[%s]]}]}',
    ],
)
def test_any_envelope_is_read_the_same_again(loaded: Loaded, envelope: str) -> None:
    for text in (*GOOD, "1,3,3", "1,3", *BAD[:8], *GOOD):
        same(loaded, [post((envelope % text).encode())])


def test_a_list_that_looks_like_the_data_is_not_taken_for_it(tmp_path: Path) -> None:
    schema = FLOATS | {"inputs": FLOATS["inputs"][:1]}
    loaded = load_model(configure(tmp_path, _scaled(), schema))
    body = '{"inputs":[{"name":"input","datatype":"FP32","data":[%s],"shape":[%s]}]}'
    for data, shape in (("1", "1,1"), ("1", "1,1"), ("1", "1"), ("1", "2,1"), ("2", "1,1")):
        same(loaded, [post((body % (data, shape)).encode())])


def _scaled() -> bytes:
    from onnx import helper

    from tools.kit.models import FLOAT, onnx_bytes

    return onnx_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", FLOAT, ["N", 1])],
        [("y", FLOAT, ["N", 1])],
    )


@pytest.mark.parametrize("names", ["abc", "cab"])
def test_a_tensor_for_each_input(loaded: Loaded, names: str) -> None:
    def asked(*values: str) -> Request:
        tensors = [TENSOR % pair for pair in zip(names, values, strict=True)]
        return post((EACH % ",".join(tensors)).encode())

    same(loaded, [asked("1", "2", "3")])
    (taken,) = same(loaded, [asked("4", "5", "6")])
    assert type(taken) is UnparsedRequest
    many = [asked("4", "5", "6"), asked("7", "8.5", "9"), post((ONE % (1, "1,2,3")).encode())]
    same(loaded, many)
    for values in (
        ("1", "", "2,3"),
        ("1,2", "3", ""),
        ("1,2", "3", " "),
        ("true", "1", "2"),
        ("1", "null", "2"),
        ('"1"', "2", "3"),
        ("1,2", "3", "4"),
        ('"', '"', "1"),
        ("99", "99", "99"),
        ("[1]", "2", "3"),
    ):
        same(loaded, [*many, asked(*values)])


def test_a_parameter_called_data_is_no_tensors(loaded: Loaded) -> None:
    more = '"parameters":{"data":[%s]}'
    for note in ("1", "2", '"]"', "1"):
        tensors = [TENSOR % pair for pair in zip("abc", "123", strict=True)]
        tensors[1] = tensors[1][:-1] + "," + more % note + "}"
        same(loaded, [post((EACH % ",".join(tensors)).encode())])


@pytest.mark.parametrize("all_binary", [True, False])
@pytest.mark.parametrize("pad", range(4))
def test_binary_requests_of_a_known_header(loaded: Loaded, all_binary: bool, pad: int) -> None:
    def asked(values: Any, size: int = 12, length: int = 0, **more: Any) -> Request:
        tensor = {"name": "input", "shape": [1, 3], "datatype": "FP32"}
        tensor["parameters"] = {"binary_data_size": size}
        said = {"inputs": [tensor], "parameters": {"binary_data_output": all_binary}, **more}
        header = json.dumps(said).encode() + b" " * pad
        return post(header + np.array(values, "<f4").tobytes(), len(header) + length)

    for values in (
        [1, 2, 3],
        [4, 5, 6],
        [np.nan, 2, 3],
        [1, np.nan, 3],
        [1, 2, np.inf],
        [1, 2],
        [1, 2, 3, 4],
        [99, 1, 1],
        [7, 8, 9],
    ):
        same(loaded, [asked(values), asked([1, 2, 3]), asked(values, id="r")])
        same(loaded, [asked(values, size=8), asked(values, length=1), asked(values, length=-1)])
    partial = {"partial": True, "binary_data_output": all_binary}
    for values in ([1, 2, 3], [99, 2, 3], [1, 2, 3]):
        same(loaded, [asked(values, parameters=partial)])
    header = json.dumps({"inputs": []}).encode()
    for length in (b"", b"+2", b" 2", b"999", b"1" * 20, str(len(header)).encode()):
        same(loaded, [Request(b"POST", b"/", [(BINARY_HEADER, length)], header)])


def test_envelopes_kept_are_bounded(loaded: Loaded) -> None:
    for at in range(600):
        body = (ONE % (1, "1,2,3"))[:-1] + f',"note{at}":1' + "}"
        same(loaded, [post(body.encode())] * 2)
    assert len(loaded.reader._known) <= 256
