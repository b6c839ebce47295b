"""Renders predictions from the store in the Open Inference Protocol V2.

Owns the conversion of stored rows to output tensors. With the request parameter
``allow_missing: true``, keys without a prediction are allowed: the output tensors hold the rows of
the keys found, in the request's order, and an additional output, the BOOL tensor ``found`` of shape
[N], marks those keys. Without the parameter a missing key is a 404, because no value is ever made
up for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from fourways_api import Contract, OutputField
from fourways_http import HttpError, Response
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.inference_response import InferenceResponse, OutputTensor
from fourways_runtime.v2.protocol import DATATYPES, FOUND, refuse
from fourways_runtime.v2.request import InferenceRequest

MAX_MISSING_NAMED = 100

LARGE_ANSWER = 10_000
"""Number of values; a larger response is rendered on a thread."""


class StoredOutputs:
    """A contract's outputs as tensors, in the contract's order."""

    __slots__ = ("by_name",)

    def __init__(self, contract: Contract) -> None:
        self.by_name = {output.name: output for output in contract.outputs}

    def selected(self, inference: InferenceRequest) -> list[tuple[OutputField, bool]]:
        """Return the requested outputs in the contract's order, each with whether it is binary.

        Raises HttpError 400.
        """
        if inference.allow_missing and FOUND in self.by_name:
            raise refuse("parameters.allow_missing", f"this deployment has an output named {FOUND}")
        if inference.outputs is None:
            return [(output, inference.binary) for output in self.by_name.values()]
        for index, (name, _) in enumerate(inference.outputs):
            if name not in self.by_name:
                known = ", ".join(self.by_name)[:256]
                raise refuse(f"outputs[{index}].name", f"is not an output; there are: {known}")
        asked = dict(inference.outputs)
        return [(o, asked[name]) for name, o in self.by_name.items() if name in asked]

    def ordered(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's outputs in the contract's order."""
        return {name: row[name] for name in self.by_name}


def answer(
    name: str,
    version: str,
    outputs: Sequence[tuple[OutputField, bool]],
    inference: InferenceRequest,
    found: Mapping[Key, Mapping[str, Any]],
    parameters: dict[str, Any],
    headers: tuple[bytes, ...] = (),
) -> Response:
    """Return an inference response; keys without a row are left out."""
    keys = inference.keys or []
    rows = [found[key] for key in keys if key in found]
    tensors = [_tensor(output, rows, binary) for output, binary in outputs]
    if inference.allow_missing:
        mask = [key in found for key in keys]
        tensors.append(OutputTensor(FOUND, "bool", (len(keys),), mask, inference.binary))
    response = InferenceResponse(name, version, tensors, inference.id, parameters)
    return response.response(headers)


def _tensor(output: OutputField, rows: Sequence[Mapping[str, Any]], binary: bool) -> OutputTensor:
    name = output.name
    data: list[Any] = [row[name] for row in rows]
    for _ in output.shape:
        if not data or not isinstance(data[0], list):
            break
        data = list(chain.from_iterable(data))
    return OutputTensor(name, output.type, (len(rows), *output.shape), data, binary)


def no_prediction(inference: InferenceRequest, found: Mapping[Key, Any], **more: Any) -> HttpError:
    """Return the 404 that names the keys without a prediction."""
    keys = inference.keys or []
    missing = [key for key in keys if key not in found]
    text = f"no prediction for {len(missing)} of {len(keys)} keys"
    return HttpError(404, text, missing=missing[:MAX_MISSING_NAMED], **more)


def metadata(
    name: str, version: str, platform: str, contract: Contract, inputs: bool = False
) -> dict[str, Any]:
    """Describe a deployment as the protocol describes a model; -1 stands for the number of keys.

    With ``inputs``, requests may contain the contract's inputs besides the entity key.
    """
    key = contract.entity_key
    entity = {"name": key.name, "datatype": DATATYPES[key.type], "shape": [-1]}
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [
            {**entity, "parameters": {"entity_key": True}},
            *(_described(field, field.value_shape) for field in contract.inputs if inputs),
        ],
        "outputs": [_described(output, output.shape) for output in contract.outputs],
    }


def _described(field: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": field.name, "datatype": DATATYPES[field.type], "shape": [-1, *shape]}
