"""The Open Inference Protocol V2 (REST, JSON tensors) as the gateway speaks it.

Owns reading an inference request that asks by entity key, and the words of its refusals: each
names a field and a reason. Turns rows of the store into typed output tensors.

Parameters of a request: ``allow_missing: true`` answers what there is where keys have no
prediction. The output tensors then hold the rows of the keys found, in the request's order, and
one more output, the BOOL tensor ``found`` of shape [N], tells which keys these are. Without it a
missing key is a 404: no value is made up for it. Other parameters are ignored, as the protocol
asks; other fields are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from fourways_api import Contract, EntityKey, OutputField
from fourways_http import HttpError, Request
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.protocol import DATATYPES, KEY_ALIAS, key_fault, read_envelope, refuse

FOUND = "found"

MAX_MISSING_NAMED = 100

_MAX_OUTPUTS = 256


@dataclass(frozen=True, slots=True)
class Question:
    """An inference request understood. ``outputs`` None: all of them."""

    keys: list[Key]
    id: str | None
    outputs: tuple[str, ...] | None
    allow_missing: bool


def read_question(request: Request, key: EntityKey, max_keys: int) -> Question:
    """Read an inference request by entity key. Raises HttpError 400 or 415, naming the field."""
    if request.header(b"inference-header-content-length") is not None:
        raise HttpError(415, "binary tensors are not accepted here: send JSON tensors")
    return question_of(request.json(), key, max_keys)


def question_of(body: Any, key: EntityKey, max_keys: int) -> Question:
    """Read an inference request's parsed body. Raises HttpError 400, naming the field."""
    body, identity = read_envelope(body)
    return Question(
        _read_keys(body.get("inputs"), key, max_keys),
        identity,
        _read_outputs(body.get("outputs")),
        read_allow_missing(body.get("parameters")),
    )


def read_key(text: str, key: EntityKey) -> Key:
    """Read a key from a path. Raises HttpError 400 where it is not of the contract's type."""
    if key.type == "string":
        value: Key = text
    else:
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise refuse("key", f"must be a whole number: {key.name} is int64")
        value = int(text)
    fault = key_fault(value, key)
    if fault:
        raise refuse("key", fault)
    return value


def read_allow_missing(parameters: Any) -> bool:
    """Read whether missing keys are no fault. Raises HttpError 400."""
    if parameters is None:
        return False
    if not isinstance(parameters, dict):
        raise refuse("parameters", "must be an object")
    allow = parameters.get("allow_missing", False)
    if not isinstance(allow, bool):
        raise refuse("parameters.allow_missing", "must be true or false")
    return allow


def _read_outputs(outputs: Any) -> tuple[str, ...] | None:
    """Return the names asked for; none asked for is all, as the protocol says."""
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list) or len(outputs) > _MAX_OUTPUTS:
        raise refuse("outputs", f"must be a list of at most {_MAX_OUTPUTS} outputs")
    names = []
    for index, output in enumerate(outputs):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise refuse(f"outputs[{index}].name", "must be a string")
        if name in names:
            raise refuse(f"outputs[{index}].name", "is asked for twice")
        names.append(name)
    return tuple(names)


def _read_keys(inputs: Any, key: EntityKey, max_keys: int) -> list[Key]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise refuse("inputs", f"must be a list of one tensor, the entity key {key.name}")
    tensor = inputs[0]
    if not isinstance(tensor, dict):
        raise refuse("inputs[0]", "must be an object")
    if tensor.get("name") not in (key.name, KEY_ALIAS):
        raise refuse("inputs[0].name", f"must be {key.name}, the entity key")
    datatype = DATATYPES[key.type]
    if tensor.get("datatype") != datatype:
        raise refuse("inputs[0].datatype", f"must be {datatype}: {key.name} is {key.type}")
    count = _read_shape(tensor.get("shape"), max_keys)
    keys = _read_data(tensor.get("data"))
    if len(keys) != count:
        raise refuse("inputs[0].data", f"holds {len(keys)} values, the shape says {count}")
    for index, value in enumerate(keys):
        fault = key_fault(value, key)
        if fault:
            raise refuse(f"inputs[0].data[{index}]", fault)
    if count > 1 and len(set(keys)) != count:
        raise refuse("inputs[0].data", "a key is asked for twice")
    return keys


def _read_shape(shape: Any, max_keys: int) -> int:
    fits = (
        isinstance(shape, list)
        and len(shape) in (1, 2)
        and all(type(size) is int for size in shape)
        and shape[1:] in ([], [1])
        and shape[0] >= 1
    )
    if not fits:
        raise refuse("inputs[0].shape", "must be [N] or [N, 1] with at least one key")
    count: int = shape[0]
    if count > max_keys:
        raise refuse("inputs[0].shape", f"asks for {count} keys, at most {max_keys} are answered")
    return count


def _read_data(data: Any) -> list[Any]:
    """Return the values; the protocol allows a tensor's data to be flat or nested by shape."""
    if not isinstance(data, list):
        raise refuse("inputs[0].data", "must be a list")
    if data and all(isinstance(row, list) and len(row) == 1 for row in data):
        return [row[0] for row in data]
    return data


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of the contract as a tensor: its shape without the leading number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, output: OutputField) -> OutputTensor:
        """Describe a contract's output."""
        return cls(output.name, DATATYPES[output.type], output.shape)

    def render(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the tensor of these rows, its data flat in row-major order."""
        name = self.name
        data: list[Any] = [row[name] for row in rows]
        for _ in self.shape:
            if not data or not isinstance(data[0], list):
                break
            data = list(chain.from_iterable(data))
        shape = [len(rows), *self.shape]
        return {"name": name, "datatype": self.datatype, "shape": shape, "data": data}


class Outputs:
    """A contract's outputs as tensors, in its order."""

    __slots__ = ("by_name", "tensors")

    def __init__(self, contract: Contract) -> None:
        self.tensors = tuple(OutputTensor.of(output) for output in contract.outputs)
        self.by_name = {tensor.name: tensor for tensor in self.tensors}

    def selected(self, question: Question) -> tuple[OutputTensor, ...]:
        """Return the tensors asked for, in the contract's order. Raises HttpError 400."""
        if question.allow_missing and FOUND in self.by_name:
            raise refuse("parameters.allow_missing", f"this deployment has an output named {FOUND}")
        if question.outputs is None:
            return self.tensors
        for index, name in enumerate(question.outputs):
            if name not in self.by_name:
                known = ", ".join(self.by_name)[:256]
                raise refuse(f"outputs[{index}].name", f"is not an output; there are: {known}")
        return tuple(tensor for tensor in self.tensors if tensor.name in question.outputs)

    def ordered(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's outputs in the contract's order."""
        return {tensor.name: row[tensor.name] for tensor in self.tensors}


def answer(
    name: str,
    version: str,
    tensors: Sequence[OutputTensor],
    question: Question,
    found: Mapping[Key, Mapping[str, Any]],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Return an inference answer; keys without a row are left out."""
    keys = question.keys
    rows = [found[key] for key in keys if key in found]
    outputs = [tensor.render(rows) for tensor in tensors]
    if question.allow_missing:
        mask = [key in found for key in keys]
        outputs.append({"name": FOUND, "datatype": "BOOL", "shape": [len(keys)], "data": mask})
    told: dict[str, Any] = {
        "model_name": name,
        "model_version": version,
        "outputs": outputs,
        "parameters": parameters,
    }
    if question.id is not None:
        told["id"] = question.id
    return told


def no_prediction(question: Question, found: Mapping[Key, Any], **more: Any) -> HttpError:
    """Return the 404 that names the keys without a prediction."""
    keys = question.keys
    missing = [key for key in keys if key not in found]
    text = f"no prediction for {len(missing)} of {len(keys)} keys"
    return HttpError(404, text, missing=missing[:MAX_MISSING_NAMED], **more)


def metadata(
    name: str, version: str, platform: str, contract: Contract, inputs: bool = False
) -> dict[str, Any]:
    """Describe a deployment as the protocol describes a model; -1 is the number of keys.

    ``inputs``: the contract's inputs may be sent beside the entity key.
    """
    key = contract.entity_key
    fields = contract.inputs if inputs else ()
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [
            {"name": key.name, "datatype": DATATYPES[key.type], "shape": [-1]},
            *(
                {"name": f.name, "datatype": DATATYPES[f.type], "shape": [-1, *f.shape]}
                for f in fields
            ),
        ],
        "outputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape]}
            for tensor in Outputs(contract).tensors
        ],
    }
