"""Reading an inference request: a body's tensors as the contract's columns, or a 400 that says why.

Owns the shape of a request and the words of its refusals; each names a field and a reason. What a
record may hold (ranges, categories, missing values) is the pipeline's business, which judges the
records of every mode.

Inputs are one tensor each, or one tensor of shape [N, inputs] named ``input`` or as the model
names its own, where all inputs are single numbers. Entity keys may come as ``entity_keys`` in the
parameters or as a tensor of the key's name; without them a record is known by its position. With
them inputs may be left out that a feature database covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract
from fourways_http import HttpError, Request
from fourways_runtime.scoring import tensors
from fourways_runtime.scoring.cells import Faults, numpy_type
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.decode import by_record

from .protocol import DATATYPES, KEY_ALIAS, key_fault, read_envelope, refuse

COMBINED = "input"
"""Name of one tensor that holds all inputs as its columns."""

_COMBINED_TYPES = {"FP32": "float32", "FP64": "float64"}
_TOLD_ROWS = 10
BINARY_HEADER = b"inference-header-content-length"
"""Tells how much of a body is JSON; binary tensors follow it."""

BadRow = tuple[int, str, str]
"""A record's position in its request, the field at fault, and the reason."""


@dataclass(slots=True)
class InferenceRequest:
    """A request understood: ``rows`` records, as one block (rows, inputs) or as columns.

    Not to be changed; frozen ones take three times as long to make.
    """

    rows: int
    id: str | None
    outputs: tuple[tuple[str, bool], ...] | None
    """Names asked for, each with whether it is to be binary; None: all, as ``binary`` says."""

    binary: bool
    keys: list[Any] | None
    block: Array | None
    columns: dict[str, Array]
    missing: tuple[str, ...] = ()
    """Inputs left out, to be looked up by ``keys``."""

    features: str | None = None
    """Where the inputs left out were taken from."""

    @property
    def asks_nothing_special(self) -> bool:
        """Whether it is to be answered with all outputs in JSON, and nothing else."""
        return (
            self.id is None and self.outputs is None and self.features is None and not self.binary
        )

    @property
    def is_all_binary(self) -> bool:
        """Whether it is to be answered with all outputs in binary, and nothing else."""
        return self.binary and self.id is None and self.outputs is None and self.features is None

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but its records, all inputs given."""
        return self.asks_nothing_special and self.keys is None and not self.missing

    def refuse(self, bad: Sequence[BadRow]) -> HttpError:
        """Return the 400 that names the first bad rows."""
        row, field, reason = bad[0]
        told = [
            {"row": at, **self._key(at), "field": name, "reason": why}
            for at, name, why in bad[:_TOLD_ROWS]
        ]
        text = f"{field}: {reason} (row {row})"
        more: dict[str, Any] = {"rows": told, "bad_rows": len(bad)}
        return HttpError(400, text, field=field, reason=reason, row=row, **more)

    def _key(self, row: int) -> dict[str, Any]:
        return {} if self.keys is None else {"key": self.keys[row]}


class RequestReader:
    """Reads the requests for one contract."""

    def __init__(
        self,
        contract: Contract,
        model_inputs: Sequence[str],
        max_rows: int,
        covered: Sequence[str] = (),
    ) -> None:
        """``model_inputs`` are the model's own names of its inputs; those ``covered`` may be left
        out by a request that has entity keys."""
        self._covered = frozenset(covered)
        self._key = contract.entity_key
        self._fields = {field.name: field for field in contract.inputs}
        self._outputs = tuple(field.name for field in contract.outputs)
        self._max_rows = max_rows
        numeric = all(not f.shape and f.type not in ("bool", "string") for f in contract.inputs)
        combined = {COMBINED, *model_inputs} if len(model_inputs) <= 1 else {COMBINED}
        self._combined = frozenset(combined - self._fields.keys()) if numeric else frozenset()
        kinds = {field.type for field in contract.inputs}
        self._block_type = np.dtype(kinds.pop()) if numeric and len(kinds) == 1 else None
        self._key_names = frozenset({self._key.name, KEY_ALIAS} - self._fields.keys())
        self.names = tuple(self._fields)
        self.width = len(self._fields)
        kind = str(self._block_type)
        self.floats = kind if kind in ("float32", "float64") else None
        """The type of all inputs, where one tensor of floats holds them."""

    def read(self, request: Request) -> InferenceRequest:
        """Read a request. Raises HttpError 400 or 415, naming the field."""
        header, binary = _split(request)
        body, identity = read_envelope(header)
        reading = _Reading(self, binary, _no_truths(request.body))
        reading.inputs(body.get("inputs"))
        binary_output, keys = self._parameters(body.get("parameters"))
        outputs = self._asked(body.get("outputs"), binary_output)
        return reading.parsed(identity, outputs, binary_output, keys)

    def _parameters(self, parameters: Any) -> tuple[bool, Any]:
        if parameters is None:
            return False, None
        if not isinstance(parameters, dict):
            raise refuse("parameters", "must be an object")
        binary = parameters.get("binary_data_output", False)
        if not isinstance(binary, bool):
            raise refuse("parameters.binary_data_output", "must be true or false")
        return binary, parameters.get("entity_keys")

    def _asked(self, outputs: Any, binary: bool) -> tuple[tuple[str, bool], ...] | None:
        """Return the outputs asked for; none asked for is all, as the protocol says."""
        if outputs is None or outputs == []:
            return None
        if not isinstance(outputs, list):
            raise refuse("outputs", "must be a list")
        asked: dict[str, bool] = {}
        for index, output in enumerate(outputs):
            at = f"outputs[{index}]"
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str):
                raise refuse(f"{at}.name", "must be a string")
            if name not in self._outputs:
                known = ", ".join(self._outputs)[:256]
                raise refuse(f"{at}.name", f"is not an output; there are: {known}")
            if name in asked:
                raise refuse(f"{at}.name", "is asked for twice")
            asked[name] = _flag(output.get("parameters"), "binary_data", at, binary)
        return tuple(asked.items())


class _Reading:
    """One request being read."""

    def __init__(self, reader: RequestReader, binary: memoryview | None, plain: bool) -> None:
        self._reader = reader
        self._binary = binary
        self._plain = plain
        self._used = 0
        self._rows = 0
        self._block: Array | None = None
        self._columns: dict[str, Array] = {}
        self._keys: list[Any] | None = None
        self._bad: dict[int, tuple[str, str]] = {}
        self._missing: tuple[str, ...] = ()

    def inputs(self, inputs: Any) -> None:
        reader = self._reader
        if not isinstance(inputs, list) or not inputs:
            raise refuse("inputs", "must be a list of tensors")
        for index, tensor in enumerate(inputs):
            # Unknown and repeated names are refused, so a request has no more than are known.
            self._tensor(f"inputs[{index}]", tensor, first=index == 0)
        if self._binary is not None and self._used != len(self._binary):
            left = len(self._binary) - self._used
            raise refuse("body", f"holds {left} bytes that belong to no tensor")
        if self._block is None and len(self._columns) < len(reader._fields):
            self._missing = tuple(name for name in reader._fields if name not in self._columns)
            for name in self._missing:
                if name not in reader._covered:
                    raise refuse(name, "is missing: the contract has it as an input")

    def parsed(
        self,
        identity: str | None,
        outputs: tuple[tuple[str, bool], ...] | None,
        binary: bool,
        keys: Any,
    ) -> InferenceRequest:
        if keys is not None:
            self._take_keys("parameters.entity_keys", keys)
        inference = InferenceRequest(
            self._rows,
            identity,
            outputs,
            binary,
            self._keys,
            self._block,
            self._columns,
            self._missing,
        )
        if self._bad:
            raise inference.refuse([(row, *self._bad[row]) for row in sorted(self._bad)])
        if self._missing and self._keys is None:
            key = self._reader._key.name
            raise refuse(self._missing[0], f"is missing: give it, or {key} to have it looked up")
        return inference

    def _tensor(self, at: str, tensor: Any, first: bool) -> None:
        reader = self._reader
        if not isinstance(tensor, dict):
            raise refuse(at, "must be an object")
        name = tensor.get("name")
        if not isinstance(name, str):
            raise refuse(f"{at}.name", "must be a string")
        field = reader._fields.get(name)
        if field is not None:
            if name in self._columns or self._block is not None:
                raise refuse(f"{at}.name", f"{name} is given twice")
            self._check_type(at, tensor, name, (DATATYPES[field.type],))
            shape = self._shape(at, tensor, field.shape, first)
            values, faults = self._data(at, tensor, field.type, field.nullable, shape)
            self._note(name, by_record(faults, field.shape))
            self._columns[name] = values.reshape(self._rows, *field.shape)
        elif name in reader._combined:
            if self._columns or self._block is not None:
                raise refuse(f"{at}.name", f"{name} holds all inputs, some are given twice")
            datatype = self._check_type(at, tensor, name, tuple(_COMBINED_TYPES))
            shape = self._shape(at, tensor, (len(reader._fields),), first)
            self._take_block(self._data(at, tensor, _COMBINED_TYPES[datatype], True, shape))
        elif name in reader._key_names:
            if self._keys is not None:
                raise refuse(f"{at}.name", "the entity key is given twice")
            self._check_type(at, tensor, name, (DATATYPES[reader._key.type],))
            shape = self._shape(at, tensor, (), first)
            keys, faults = self._data(at, tensor, reader._key.type, False, shape)
            self._note(name, faults)
            if not faults:
                self._take_keys(f"{at}.data", keys.tolist())
        else:
            known = ", ".join(reader._fields)[:256]
            raise refuse(f"{at}.name", f"{name[:63]} is not an input; there are: {known}")

    def _check_type(self, at: str, tensor: dict[str, Any], name: str, may: tuple[str, ...]) -> str:
        datatype = tensor.get("datatype")
        if datatype not in may:
            raise refuse(f"{at}.datatype", f"must be {' or '.join(may)} for {name}")
        return str(datatype)

    def _shape(
        self, at: str, tensor: dict[str, Any], record: tuple[int, ...], first: bool
    ) -> tuple[int, ...]:
        """Check a shape against [N, *record] and the other tensors' N."""
        shape: Any = tensor.get("shape")
        told = ", ".join(["N", *map(str, record)])
        sizes: Any = shape[1:] if isinstance(shape, list) and shape else None
        if (
            sizes is None
            or not all(type(size) is int for size in shape)
            or (sizes != list(record) and (record or sizes != [1]))
        ):
            raise refuse(f"{at}.shape", f"must be [{told}] for {tensor['name']}")
        rows, most = shape[0], self._reader._max_rows
        if rows < 1:
            raise refuse(f"{at}.shape", "holds no rows")
        if rows > most:
            raise refuse(f"{at}.shape", f"holds {rows} rows, at most {most} are answered at once")
        if not first and rows != self._rows:
            raise refuse(f"{at}.shape", f"holds {rows} rows, the tensors before it {self._rows}")
        self._rows = rows
        return tuple(shape)

    def _data(
        self, at: str, tensor: dict[str, Any], kind: str, nullable: bool, shape: tuple[int, ...]
    ) -> tuple[Array, Faults]:
        parameters = tensor.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        try:
            if size is None:
                if "data" not in tensor:
                    raise tensors.MalformedTensor("is missing")
                return tensors.from_json(kind, nullable, tensor["data"], shape, self._plain)
            if "data" in tensor:
                raise tensors.MalformedTensor("and binary_data_size exclude each other")
            return tensors.from_binary(kind, self._take_bytes(at, size), math.prod(shape))
        except tensors.MalformedTensor as error:
            raise refuse(f"{at}.data", str(error)) from None

    def _take_bytes(self, at: str, size: Any) -> memoryview:
        where = f"{at}.parameters.binary_data_size"
        if self._binary is None:
            raise refuse(where, "needs the header Inference-Header-Content-Length")
        left = len(self._binary) - self._used
        if type(size) is not int or size < 0:
            raise refuse(where, "must be a whole number of bytes")
        if size > left:
            raise refuse(where, f"is {size} bytes, the body has {left} left")
        self._used += size
        return self._binary[self._used - size : self._used]

    def _take_block(self, read: tuple[Array, Faults]) -> None:
        reader = self._reader
        values, wrong = read
        width = len(reader._fields)
        names = list(reader._fields)
        for element, reason in wrong.items():
            self._bad.setdefault(element // width, (names[element % width], reason))
        values = values.reshape(self._rows, width)
        if reader._block_type is not None:
            flat, faults = tensors.fit(reader._block_type, values.reshape(-1))
            if not faults:
                self._block = flat.reshape(self._rows, width)
                return
        for at, (name, field) in enumerate(reader._fields.items()):
            column, faults = tensors.fit(numpy_type(field.type), values[:, at])
            self._note(name, faults)
            self._columns[name] = column

    def _take_keys(self, at: str, keys: Any) -> None:
        if self._keys is not None:
            raise refuse(at, "the entity key is given twice")
        if not isinstance(keys, list) or len(keys) != self._rows:
            raise refuse(at, f"must be a list of {self._rows} keys, one a row")
        for index, value in enumerate(keys):
            fault = key_fault(value, self._reader._key)
            if fault:
                raise refuse(f"{at}[{index}]", fault)
        self._keys = keys

    def _note(self, name: str, faults: Faults) -> None:
        for row, reason in faults.items():
            self._bad.setdefault(row, (name, reason))


def _no_truths(body: bytes) -> bool:
    """Tell whether neither true nor false occurs in a body: at once, where a letter is missing."""
    if b"l" not in body and b"r" not in body:
        return True
    return b"true" not in body and b"false" not in body


def _split(request: Request) -> tuple[Any, memoryview | None]:
    """Return the JSON part of a body and the binary part, None where there is none."""
    length = request.header(BINARY_HEADER)
    if length is None:
        return request.json(), None
    digits = length.strip()
    if not digits.isdigit() or len(digits) > 12 or int(digits) > len(request.body):
        where = "Inference-Header-Content-Length"
        raise refuse(where, f"must be a number of bytes, at most the body's {len(request.body)}")
    end = int(digits)
    try:
        header = orjson.loads(request.body[:end])
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the first {end} bytes of the body are not JSON: {error}") from None
    return header, memoryview(request.body)[end:]


def _flag(parameters: Any, name: str, at: str, default: bool) -> bool:
    if parameters is None:
        return default
    if not isinstance(parameters, dict):
        raise refuse(f"{at}.parameters", "must be an object")
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise refuse(f"{at}.parameters.{name}", "must be true or false")
    return value
