"""Reads one request's tensors: checks names, types and shapes, and converts or refuses the data.

Used by :class:`.request.RequestReader`, which reads the rest of the request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fourways_api import EntityKey, InputField
from fourways_runtime.scoring import tensors
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.ragged import fits
from fourways_runtime.scoring.times import is_time
from fourways_runtime.scoring.values import Faults, by_record, no_values, numpy_type

from .protocol import DATATYPES, key_fault, refuse

_COMBINED_TYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}


class ReaderSettings(Protocol):
    """The settings that requests are checked against."""

    covered: frozenset[str]
    key: EntityKey
    max_rows: int
    combined: frozenset[str]
    block_type: np.dtype[Any] | None
    key_names: frozenset[str]
    form: str

    @property
    def keyed(self) -> str:
        """Whether entity keys are optional, required or the only input: see ``request.Keyed``."""
        ...

    @property
    def blocks(self) -> Mapping[str, InputField]:
        """The inputs that stand for several columns, by name."""
        ...

    @property
    def fields(self) -> Mapping[str, InputField]:
        """The permitted inputs by name, in the contract's order."""
        ...


class TensorReading:
    """The tensors of one request."""

    def __init__(
        self, reader: ReaderSettings, binary: memoryview | None, *, plain: bool, exact: bool
    ) -> None:
        """``binary`` is the body after its JSON; ``plain``: the JSON has no true or false.

        ``exact``: its integers of more than 64 bits are no floats; see :mod:`..scoring.exact_json`.
        """
        self._reader = reader
        self._binary = binary
        self._plain = plain
        self._exact = exact
        self._used = 0
        self.rows = 0
        self.block: Array | None = None
        self.columns: dict[str, Array] = {}
        self.keys: list[Any] | None = None
        self.bad: dict[int, tuple[str, str]] = {}
        self.missing: tuple[str, ...] = ()

    def inputs(self, inputs: Any) -> None:
        """Read the tensors of a request. Raises HttpError 400."""
        reader = self._reader
        if not isinstance(inputs, list) or not inputs:
            raise refuse("inputs", f"must be a list of tensors: {reader.form}")
        if reader.keyed == "only" and len(inputs) != 1:
            raise refuse("inputs", f"must be one tensor, the entity key {reader.key.name}")
        for index, tensor in enumerate(inputs):
            # Unknown and repeated names are refused, which also limits the number of tensors.
            self._tensor(f"inputs[{index}]", tensor, first=index == 0)
        if self._binary is not None and self._used != len(self._binary):
            left = len(self._binary) - self._used
            raise refuse("body", f"holds {left} bytes that belong to no tensor")

    def settle(self) -> None:
        """Handle inputs left out, once all tensors and keys are read. Raises HttpError 400."""
        reader = self._reader
        key = reader.key.name
        if reader.keyed != "optional":
            if self.keys is None:
                raise refuse("inputs", f"lacks the entity key: send the tensor {key}")
            if not self.columns and self.block is None:
                return  # the request holds only keys
        if self.block is not None or len(self.columns) == len(reader.fields):
            return
        left_out = [name for name in reader.fields if name not in self.columns]
        looked_up = [name for name in left_out if name in reader.covered]
        if looked_up and self.keys is not None:
            self.missing = tuple(looked_up)
        if not self.rows:  # nothing is to be looked up
            for name in self.missing:
                self.columns[name] = no_values(reader.fields[name])
            left_out = [name for name in left_out if name not in self.missing]
            self.missing = ()
        for name in left_out:
            field = reader.fields[name]
            if name in self.missing:
                continue
            kind = numpy_type(field.type)
            if field.nullable and kind.kind in "fO" and not field.is_free:
                nothing = None if field.type == "string" else math.nan
                self.columns[name] = np.full((self.rows, *field.shape), nothing, kind)
            elif name in reader.covered:
                raise refuse(name, f"is missing: give it, or {key} to have it looked up")
            else:
                raise refuse(name, "missing: the contract requires this input")

    def _tensor(self, at: str, tensor: Any, first: bool) -> None:
        reader = self._reader
        if not isinstance(tensor, dict):
            raise refuse(at, "must be an object")
        name = tensor.get("name")
        if not isinstance(name, str):
            raise refuse(f"{at}.name", "must be a string")
        field = reader.fields.get(name)
        if field is not None:
            if name in self.columns or self.block is not None:
                raise refuse(f"{at}.name", f"{name} is given twice")
            may = ("BYTES", "INT64") if is_time(field.type) else (DATATYPES[field.type],)
            datatype = self._check_type(at, tensor, name, may)
            kind = "int64" if datatype == "INT64" else field.type
            shape = self._shape(at, tensor, field.shape, first)
            values, faults = self._data(at, tensor, kind, field.nullable, shape)
            sizes = shape[1:] if field.shape else ()
            self._note(name, by_record(faults, sizes))
            self.columns[name] = values.reshape(self.rows, *sizes)
        elif name in reader.blocks:
            self._take_columns(at, tensor, reader.blocks[name], first)
        elif name in reader.combined:
            if self.columns or self.block is not None:
                raise refuse(f"{at}.name", f"{name} holds all inputs, some are given twice")
            datatype = self._check_type(at, tensor, name, tuple(_COMBINED_TYPES))
            shape = self._shape(at, tensor, (len(reader.fields),), first)
            self._take_block(self._data(at, tensor, _COMBINED_TYPES[datatype], True, shape))
        elif name in reader.key_names:
            if self.keys is not None:
                raise refuse(f"{at}.name", "the entity key is given twice")
            self._check_type(at, tensor, name, (DATATYPES[reader.key.type],))
            shape = self._shape(at, tensor, (), first)
            self.take_keys(f"{at}.data", self._key_data(at, tensor, shape))
        elif reader.keyed == "only":
            raise refuse(f"{at}.name", f"must be {reader.key.name}, the entity key")
        else:
            known = ", ".join(reader.fields)[:256]
            raise refuse(f"{at}.name", f"{name[:63]} is not an input; there are: {known}")

    def _take_columns(
        self, at: str, tensor: dict[str, Any], block: InputField, first: bool
    ) -> None:
        """Take one tensor for all columns of a block."""
        names = block.column_names
        if self.block is not None or any(name in self.columns for name in names):
            raise refuse(f"{at}.name", f"{block.name} holds columns that are given twice")
        self._check_type(at, tensor, block.name, (DATATYPES[block.type],))
        shape = self._shape(at, tensor, (len(names),), first)
        values, faults = self._data(at, tensor, block.type, block.nullable, shape)
        for element, reason in faults.items():
            self.bad.setdefault(element // len(names), (names[element % len(names)], reason))
        values = values.reshape(self.rows, len(names))
        if len(names) == len(self._reader.fields) and values.dtype == self._reader.block_type:
            self.block = values
            return
        for place, name in enumerate(names):
            self.columns[name] = values[:, place]

    def _check_type(self, at: str, tensor: dict[str, Any], name: str, may: tuple[str, ...]) -> str:
        datatype = tensor.get("datatype")
        if datatype not in may:
            raise refuse(f"{at}.datatype", f"must be {' or '.join(may)} for {name}")
        return str(datatype)

    def _shape(
        self, at: str, tensor: dict[str, Any], record: tuple[int, ...], first: bool
    ) -> tuple[int, ...]:
        """Check a shape against [N, *record], where N must be that of the other tensors."""
        shape: Any = tensor.get("shape")
        wanted = ", ".join(["N", *map(str, record)])
        sizes: Any = shape[1:] if isinstance(shape, list) and shape else None
        if (
            sizes is None
            or not all(type(size) is int for size in shape)
            or (not fits(sizes, record) and (record or sizes != [1]))
        ):
            raise refuse(f"{at}.shape", f"must be [{wanted}] for {tensor['name']}")
        rows, most = shape[0], self._reader.max_rows
        if rows < 0:
            raise refuse(f"{at}.shape", f"holds {rows} rows: N must be 0 or more")
        if rows > most:
            raise refuse(
                f"{at}.shape", f"holds {rows} rows, at most {most} are allowed in a request"
            )
        if not first and rows != self.rows:
            raise refuse(f"{at}.shape", f"holds {rows} rows, the tensors before it {self.rows}")
        self.rows = rows
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
                return tensors.from_json(
                    kind, nullable, tensor["data"], shape, self._plain, exact=self._exact
                )
            if "data" in tensor:
                raise tensors.MalformedTensor("and binary_data_size exclude each other")
            return tensors.from_binary(kind, self._take_bytes(at, size), math.prod(shape))
        except tensors.MalformedTensor as error:
            raise refuse(f"{at}.data", str(error)) from None

    def _key_data(self, at: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> list[Any]:
        data = tensor.get("data")
        if type(data) is not list or "parameters" in tensor:
            keys, faults = self._data(at, tensor, self._reader.key.type, False, shape)
            if not faults:
                return list(keys.tolist())
            data = tensor["data"]  # take_keys checks each key
        if data and all(type(row) is list and len(row) == 1 for row in data):
            return [row[0] for row in data]
        return list(data)

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
        width = len(reader.fields)
        names = list(reader.fields)
        for element, reason in wrong.items():
            self.bad.setdefault(element // width, (names[element % width], reason))
        values = values.reshape(self.rows, width)
        if reader.block_type is not None:
            flat, faults = tensors.fit(reader.block_type, values.reshape(-1))
            if not faults:
                self.block = flat.reshape(self.rows, width)
                return
        for at, (name, field) in enumerate(reader.fields.items()):
            column, faults = tensors.fit(numpy_type(field.type), values[:, at])
            self._note(name, faults)
            self.columns[name] = column

    def take_keys(self, at: str, keys: Any) -> None:
        """Set the entity keys. Raises HttpError 400."""
        if self.keys is not None:
            raise refuse(at, "the entity key is given twice")
        reader = self._reader
        if not isinstance(keys, list) or len(keys) != self.rows:
            raise refuse(at, f"must be a list of {self.rows} keys, one a row")
        for index, value in enumerate(keys):
            fault = key_fault(value, reader.key)
            if fault:
                raise refuse(f"{at}[{index}]", fault)
        if reader.keyed != "optional" and len(keys) > 1 and len(set(keys)) != len(keys):
            raise refuse(at, "a key is requested twice")
        self.keys = list(keys)

    def _note(self, name: str, faults: Faults) -> None:
        for row, reason in faults.items():
            self.bad.setdefault(row, (name, reason))
