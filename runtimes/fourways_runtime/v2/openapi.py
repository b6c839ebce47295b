"""The OpenAPI 3.1 document of a deployment, made from its contract.

Owns the description of types for HTTP clients: a record is an object with the contract's fields,
each with its range, categories and description. Pure: no I/O, no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from fourways_api import Contract, InputField, OutputField
from fourways_http import Response, json_response
from fourways_runtime.scoring import times

from .examples import example_tensor, examples_of
from .protocol import DATATYPES

Json: TypeAlias = dict[str, Any]
RequestParts: TypeAlias = Literal["inputs", "key", "both"]
"""What a request holds: the inputs and perhaps the key, the key alone, or the key and perhaps the
inputs."""

_LIMITS = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_ERRORS = {
    "400": "The request is invalid: `field` and `reason` say where and why.",
    "404": "There is no such deployment, version or prediction.",
    "503": "The deployment cannot answer now; `Retry-After` says when to try again.",
}


def document(
    name: str,
    version: str,
    contract: Contract,
    parts: RequestParts,
    optional: tuple[str, ...] = (),
    known: Mapping[str, Any] | None = None,
) -> Response:
    """Return the document as a response.

    ``optional`` are inputs that may be left out. ``known`` are the inputs of a real record, by
    column; the examples have them, as far as they are short.
    """
    record, outputs = _record(contract, parts, optional), _outputs(contract)
    shown = {} if parts == "key" else examples_of(contract, known or {})
    return json_response(
        {
            "openapi": "3.1.0",
            "info": {
                "title": name,
                "version": version,
                "description": f"Predictions of {name}.",
            },
            "paths": _paths(name, contract, parts, shown),
            "components": {
                "schemas": {
                    "Record": record,
                    "Outputs": outputs,
                    "Instances": _list_of("instances", "Record"),
                    "Predictions": _predictions(contract),
                    "InferRequest": _tensors_of("inputs"),
                    "InferResponse": _tensors_of("outputs"),
                    "Tensor": _TENSOR,
                    "Error": _ERROR,
                }
            },
        }
    )


# ---- paths


def _paths(name: str, contract: Contract, parts: RequestParts, shown: Json) -> Json:
    inputs = [field for field in contract.inputs if field.name in shown]
    tensors = [example_tensor(field, shown[field.name]) for field in inputs]
    if parts != "inputs":
        tensors = [_key_tensor(contract), *(tensors if parts == "both" else [])]
    paths: Json = {
        f"/v2/models/{name}/infer": {
            "post": _operation(
                "infer",
                "Open Inference Protocol, version 2",
                "InferRequest",
                "InferResponse",
                {"inputs": tensors},
            )
        },
        f"/v1/models/{name}:predict": {
            "post": _operation(
                "predict",
                "One object for each record",
                "Instances",
                "Predictions",
                {"instances": [_example(contract, parts, shown)]},
            )
        },
    }
    if parts != "inputs":
        key = contract.entity_key
        paths[f"/predictions/{name}/{{key}}"] = {
            "get": {
                "operationId": "lookup",
                "summary": "The stored prediction of one entity",
                "parameters": [
                    {
                        "name": "key",
                        "in": "path",
                        "required": True,
                        "description": key.name,
                        "schema": _type_of(key.type),
                    }
                ],
                "responses": _responses(_LOOKUP),
            }
        }
    return paths


def _operation(identity: str, summary: str, request: str, response: str, example: Json) -> Json:
    return {
        "operationId": identity,
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _reference(request), "example": example}},
        },
        "responses": _responses(_reference(response)),
    }


def _responses(schema: Json) -> Json:
    errors = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": _reference("Error")}},
        }
        for status, text in _ERRORS.items()
    }
    answer = {"description": "Answered.", "content": {"application/json": {"schema": schema}}}
    return {"200": answer, **errors}


# ---- schemas


def _record(contract: Contract, parts: RequestParts, optional: tuple[str, ...]) -> Json:
    key = contract.entity_key
    fields: Json = {}
    required: list[str] = []
    if parts != "inputs":
        fields[key.name] = {**_type_of(key.type), "description": "The entity key."}
        required.append(key.name)
    if parts != "key":
        for field in contract.inputs:
            fields[field.name] = _field(field)
        if parts == "inputs":
            required += [
                f.name for f in contract.inputs if not f.nullable and f.name not in optional
            ]
    return {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def _outputs(contract: Contract) -> Json:
    fields = {field.name: _field(field) for field in contract.outputs}
    return {"type": "object", "properties": fields, "required": list(fields)}


def _field(field: InputField | OutputField) -> Json:
    schema = _type_of(field.type)
    if field.range is not None:
        bounds = {"minimum": field.range.min, "maximum": field.range.max}
        schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    if field.categories is not None:
        schema["enum"] = list(field.categories)
    if isinstance(field, InputField) and field.nullable:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"].append(None)
    for size in reversed(_shape(field)):
        limits = {"minItems": size, "maxItems": size}
        if size == -1:
            limits = {"minItems": 1} if isinstance(field, InputField) else {}
        schema = {"type": "array", **limits, "items": schema}
    if field.description is not None:
        schema["description"] = field.description
    return schema


def _shape(field: InputField | OutputField) -> tuple[int, ...]:
    return field.value_shape if isinstance(field, InputField) else field.shape


def _type_of(kind: str) -> Json:
    if kind == "bytes":
        return {"type": "string", "contentEncoding": "base64"}
    if times.is_time(kind):
        return {"type": "string", "format": "date" if kind == "date" else "date-time"}
    if kind in ("bool", "string"):
        return {"type": "boolean" if kind == "bool" else "string"}
    if kind in _LIMITS:
        low, high = _LIMITS[kind]
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": "number"}


def _predictions(contract: Contract) -> Json:
    (first, *others) = contract.outputs
    item = _reference("Outputs") if others else _field(first)
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": item}},
        "required": ["predictions"],
    }


def _list_of(name: str, schema: str) -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": "array", "minItems": 1, "items": _reference(schema)}},
        "required": [name],
    }


def _tensors_of(name: str) -> Json:
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            name: {"type": "array", "items": _reference("Tensor")},
        },
        "required": [name],
    }


def _reference(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


_TENSOR: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": sorted(DATATYPES.values())},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
    "required": ["name", "datatype", "shape"],
}
_ERROR: Json = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "field": {"type": "string"},
        "reason": {"type": "string"},
    },
    "required": ["error"],
}
_LOOKUP: Json = {
    "type": "object",
    "properties": {
        "deployment": {"type": "string"},
        "key": {},
        "version": {"type": "string"},
        "computed_at": {"type": "string", "format": "date-time"},
        "age_seconds": {"type": "number"},
        "outputs": _reference("Outputs"),
    },
    "required": ["deployment", "key", "outputs"],
}


# ---- examples


def _example(contract: Contract, parts: RequestParts, shown: Json) -> Json:
    key = {contract.entity_key.name: _example_key(contract)} if parts != "inputs" else {}
    return {**key, **shown}


def _example_key(contract: Contract) -> Any:
    return 1 if contract.entity_key.type == "int64" else "KEY"


def _key_tensor(contract: Contract) -> Json:
    kind = DATATYPES[contract.entity_key.type]
    name = contract.entity_key.name
    return {"name": name, "datatype": kind, "shape": [1], "data": [_example_key(contract)]}
