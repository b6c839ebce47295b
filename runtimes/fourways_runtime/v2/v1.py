"""Version 1 of the protocol (``:predict``), for clients that were written for it.

Owns the conversion of its requests and responses to those of version 2, which every mode answers.
What an instance holds is read from the model's metadata, so all modes convert alike. This is a
plain path: a request is parsed twice.

A request is ``{"instances": [...]}``, one instance for each row: an object by the names of inputs,
a list in the order of the metadata, or the bare value of a model with one input. Instead,
``inputs`` may hold an object of columns. The response is ``{"predictions": [...]}``, or
``{"outputs": ...}`` for ``inputs``. A row of a model with one output is that output's value,
otherwise an object.

A request's ``parameters`` are those of version 2, without ``binary_data_output``. Every row of the
request has its prediction at the same position: with ``partial``, those of bad rows are null, and
``errors`` describes them; with ``allow_missing``, those of unknown keys have only ``found``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fourways_api.shapes import shape_of
from fourways_http import HttpError, Request, Response, json_response
from fourways_http.message import Handler, awaited
from fourways_runtime.scoring import exact_json

from .body import MAX_BODY_BYTES, OFF_LOOP_BYTES, is_heavy, split_body
from .off_loop import off_loop
from .protocol import FOUND, refuse, rows_of

FORM = '{"instances": [{"NAME": VALUE}]}'
_FIELDS = frozenset({"id", "inputs", "instances", "parameters", "signature_name"})
_KEPT = frozenset({b"authorization", b"prefer", b"traceparent", b"tracestate", b"x-request-id"})
_KEPT |= {b"grpc-timeout", b"idempotency-key", b"x-request-timeout"}


async def predict(
    metadata: Handler, infer: Handler, request: Request, max_body_bytes: int = MAX_BODY_BYTES
) -> Response:
    """Answer a request of version 1 with version 2's handlers of a model. Raises HttpError."""
    inputs = _parsed(await awaited(metadata(request)))["inputs"]
    heavy = is_heavy(request)
    asking = (request, inputs, max_body_bytes)
    body, columns = await off_loop(_converted, *asking) if heavy else _converted(*asking)
    asked = Request(b"POST", request.target, _headers(request), body)
    asked.params, asked.route, asked.echo = request.params, request.route, request.echo
    asked.waited, asked.caller = request.waited, request.caller
    answer = await awaited(infer(asked))
    if answer.status != 200:
        return answer
    if len(answer.body) > OFF_LOOP_BYTES:
        return await off_loop(_predictions, answer, columns)
    return _predictions(answer, columns)


def _parsed(answer: Response) -> Any:
    if answer.status != 200:
        error = HttpError(answer.status, "")
        error.response = answer
        raise error
    return orjson.loads(answer.body)


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    return [header for header in request.headers if header[0].lower() in _KEPT]


# ---- requests


def _converted(
    request: Request, inputs: Sequence[dict[str, Any]], max_body_bytes: int
) -> tuple[bytes, bool]:
    """Return the body of version 2, and whether the request holds columns."""
    body, binary, _ = split_body(request, max_body_bytes)
    if binary is not None or not isinstance(body, dict):
        raise refuse("body", f"must be a JSON object: {FORM}")
    if not body.keys() <= _FIELDS:
        unknown = sorted(body.keys() - _FIELDS)[0][:63]
        raise refuse(unknown, f"is not a field of version 1 of the protocol; send {FORM}")
    columns = "inputs" in body
    if columns == ("instances" in body):
        raise refuse("instances", f"send either instances or inputs: {FORM}")
    rows = _rows_of(body["inputs"]) if columns else body["instances"]
    if not isinstance(rows, list):
        raise refuse("instances", f"must be a list of rows: {FORM}")
    translated: dict[str, Any] = {"inputs": _tensors(rows, inputs) if rows else _no_rows(inputs)}
    translated |= {name: body[name] for name in ("id", "parameters") if body.get(name) is not None}
    parameters = translated.get("parameters")
    if isinstance(parameters, dict) and parameters.get("binary_data_output", False) is not False:
        raise refuse("parameters.binary_data_output", "is not supported in version 1: remove it")
    return exact_json.dumps(translated), columns


def _rows_of(columns: Any) -> Any:
    """Return columns as rows; a list is taken as rows already."""
    if not isinstance(columns, dict):
        return columns
    if not columns:
        raise refuse("inputs", 'must be an object of columns: {"NAME": [VALUE, ...]}')
    if not all(isinstance(values, list) for values in columns.values()):
        raise refuse("inputs", 'must be an object of columns: {"NAME": [VALUE, ...]}')
    if len({len(values) for values in columns.values()}) > 1:
        raise refuse("inputs", "the columns must have the same number of rows")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _tensors(rows: list[Any], inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tensors of version 2: each input that at least one row has."""
    known = {one["name"]: one for one in inputs}
    found: dict[str, list[Any]] = {}
    for at, instance in enumerate(rows):
        for name, value in _named(instance, at, inputs).items():
            column = found.get(name)
            if column is None:
                column = found[name] = [None] * len(rows)
            column[at] = value
    # The entity key may be sent where the metadata does not list it; version 2 knows its name.
    return [_tensor(name, known.get(name), values) for name, values in found.items()]


def _no_rows(inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tensors without rows, of all inputs."""
    return [
        {
            "name": one["name"],
            "datatype": one["datatype"],
            "shape": [0, *map(abs, one["shape"][1:])],
            "data": [],
        }
        for one in inputs
    ]


def _named(instance: Any, at: int, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row's values by the names of their inputs."""
    if isinstance(instance, dict):
        return instance
    own = [one for one in inputs if not _is_key(one)] or list(inputs)
    if len(own) == 1 and (not isinstance(instance, list) or len(own[0]["shape"]) > 1):
        return {own[0]["name"]: instance}
    if isinstance(instance, list):
        for some in (own, list(inputs)):
            if len(some) == len(instance):
                return {one["name"]: value for one, value in zip(some, instance, strict=True)}
    names = ", ".join(one["name"] for one in own)[:256]
    raise refuse(f"instances[{at}]", f"must be an object, or a list of {len(own)} values: {names}")


def _is_key(described: dict[str, Any]) -> bool:
    return bool((described.get("parameters") or {}).get("entity_key"))


def _tensor(name: str, described: dict[str, Any] | None, values: list[Any]) -> dict[str, Any]:
    if described is None:
        whole = all(type(value) is int for value in values)
        described = {"datatype": "INT64" if whole else "BYTES", "shape": [-1]}
    return {
        "name": name,
        "datatype": described["datatype"],
        "shape": [len(values), *shape_of(described["shape"][1:], values[0])],
        "data": values,
    }


# ---- responses


def _predictions(answer: Response, columns: bool) -> Response:
    response = orjson.loads(answer.body)
    outputs = {one["name"]: rows_of(one) for one in response["outputs"]}
    parameters = response.get("parameters") or {}
    good: list[int] | None = parameters["rows"] if parameters.get("bad_rows") else None
    if good is not None:
        count = len(good) + parameters["bad_rows"]
        outputs = {name: _placed(rows, good, count) for name, rows in outputs.items()}
    single = len(outputs) == 1
    shown: Any
    if columns:
        shown = {"outputs": next(iter(outputs.values())) if single else outputs}
    elif single:
        shown = {"predictions": next(iter(outputs.values()))}
    else:
        shown = {"predictions": _objects(outputs, good)}
    if good is not None:
        shown["errors"] = parameters["errors"]
    if "id" in response:
        shown["id"] = response["id"]
    return json_response(shown, 200, answer.headers)


def _placed(rows: list[Any], good: list[int], count: int) -> list[Any]:
    """Put the rows of a partial response at their positions in the request; others are None."""
    placed: list[Any] = [None] * count
    for at, row in zip(good, rows, strict=True):
        placed[at] = row
    return placed


def _objects(outputs: dict[str, list[Any]], good: list[int] | None) -> list[Any]:
    """Return one object for each row of the request; None for a bad row."""
    found = outputs.get(FOUND)
    if found is not None and any(len(rows) < len(found) for rows in outputs.values()):
        # The other outputs have only the rows of the keys found.
        others = {name: rows for name, rows in outputs.items() if name != FOUND}
        left = zip(*others.values(), strict=True)
        return [
            {**dict(zip(others, next(left), strict=True)), FOUND: True} if one else {FOUND: False}
            for one in found
        ]
    rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return rows if good is None else _placed([rows[at] for at in good], good, len(rows))
