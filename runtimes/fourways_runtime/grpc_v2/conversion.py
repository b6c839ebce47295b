"""Converts messages to requests of the protocol over HTTP, and responses back to messages.

Tensors travel as binary data in both directions: ``raw_input_contents`` are a request's binary part
as they are, and typed ``contents`` are encoded to it. A request with typed contents gets a response
with typed contents, unless an output is of a type (FP16) that has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from fourways_http import HttpError, Response
from fourways_runtime.v2.body import BINARY_HEADER
from fourways_runtime.v2.protocol import refuse

from .messages import message

ModelInferResponse = message("ModelInferResponse")

_TYPED: Mapping[str, tuple[str, str]] = {
    "BOOL": ("bool_contents", "|b1"),
    "INT8": ("int_contents", "|i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "|u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
}
"""For each datatype the field of its typed contents, and the elements of its binary data."""

_TEXTS = "bytes_contents"
_WIDE = {"int_contents": "<i4", "uint_contents": "<u4"}


def binary_request(request: Any) -> tuple[int, bytes]:
    """Return a ModelInferRequest as the body of a binary request, with the length of its JSON.

    Raises HttpError 400.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise refuse("raw_input_contents", f"has {len(raw)} items for {len(request.inputs)} inputs")
    for at, tensor in enumerate(request.inputs if raw else ()):
        if tensor.contents.ListFields():
            raise refuse(f"inputs[{at}].contents", "and raw_input_contents exclude each other")
    parts = [bytes(part) for part in raw] or [
        _encoded(tensor, f"inputs[{at}]") for at, tensor in enumerate(request.inputs)
    ]
    document: dict[str, Any] = {
        "inputs": [_described(*both) for both in zip(request.inputs, parts, strict=True)],
        "parameters": {**_plain(request.parameters), "binary_data_output": True},
    }
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [
            {"name": one.name, "parameters": {**_plain(one.parameters), "binary_data": True}}
            for one in request.outputs
        ]
    header = orjson.dumps(document)
    return len(header), b"".join((header, *parts))


def infer_response(answer: Response, typed: bool) -> Any:
    """Return a binary response as a ModelInferResponse; ``typed`` asks for typed contents."""
    body = memoryview(answer.body)
    at = _header_length(answer)
    document = orjson.loads(body[:at])
    made = ModelInferResponse(
        model_name=document["model_name"],
        model_version=document.get("model_version") or "",
        id=document.get("id") or "",
    )
    _fill(made.parameters, document.get("parameters") or {})
    typed = typed and all(each["datatype"] in (*_TYPED, "BYTES") for each in document["outputs"])
    for output in document["outputs"]:
        tensor = made.outputs.add(name=output["name"], datatype=output["datatype"])
        tensor.shape.extend(output["shape"])
        size = output["parameters"]["binary_data_size"]
        data = bytes(body[at : at + size])
        at += size
        if typed:
            _decode(tensor, data)
        else:
            made.raw_output_contents.append(data)
    return made


def _header_length(answer: Response) -> int:
    for line in answer.headers:
        name, _, value = line.partition(b":")
        if name.lower() == BINARY_HEADER:
            return int(value)
    raise HttpError(502, "the response has no binary data")


# ---- parameters


def _plain(parameters: Any) -> dict[str, Any]:
    """Return a map of InferParameter as values."""
    found = {}
    for name, value in parameters.items():
        chosen = value.WhichOneof("parameter_choice")
        if chosen is not None:
            found[name] = getattr(value, chosen)
    return found


def _fill(parameters: Any, values: Mapping[str, Any]) -> None:
    """Write values to a map of InferParameter. What is not a scalar becomes JSON."""
    for name, value in values.items():
        match value:
            case bool():
                parameters[name].bool_param = value
            case int() if -(2**63) <= value < 2**63:
                parameters[name].int64_param = value
            case float():
                parameters[name].double_param = value
            case str():
                parameters[name].string_param = value
            case _:
                parameters[name].string_param = json.dumps(value)


# ---- tensors


def _described(tensor: Any, data: bytes) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": {**_plain(tensor.parameters), "binary_data_size": len(data)},
    }


def _encoded(tensor: Any, at: str) -> bytes:
    """Return typed contents as binary data."""
    contents = tensor.contents
    filled = [field.name for field, _ in contents.ListFields()]
    wanted = _TEXTS if tensor.datatype == "BYTES" else _TYPED.get(tensor.datatype, ("", ""))[0]
    if filled not in ([wanted], []):
        expected = wanted or "raw_input_contents"
        raise refuse(f"{at}.contents", f"{tensor.datatype or 'no datatype'} is sent in {expected}")
    if tensor.datatype == "BYTES":
        texts = contents.bytes_contents
        return b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))
    if not wanted:
        return b""
    kind = np.dtype(_TYPED[tensor.datatype][1])
    values = np.array(getattr(contents, wanted), dtype=_WIDE.get(wanted, kind))
    cast = values.astype(kind)
    if not np.array_equal(cast, values, equal_nan=kind.kind == "f"):
        raise refuse(f"{at}.contents", f"holds a value that does not fit {tensor.datatype}")
    return cast.tobytes()


def _decode(tensor: Any, data: bytes) -> None:
    """Write binary data to a tensor's typed contents."""
    if tensor.datatype == "BYTES":
        tensor.contents.bytes_contents.extend(_texts(data))
        return
    field, kind = _TYPED[tensor.datatype]
    getattr(tensor.contents, field).extend(np.frombuffer(data, kind).tolist())


def _texts(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found
