"""Reads an inference request: converts its tensors to the contract's columns, or raises a 400.

This is the only reader: the gateway's modes, the model server and the device agent use it. Owns the
format of a request and the wording of its refusals, each with a field and a reason. The values
that a record may hold (ranges, categories, missing values) are the pipeline's responsibility, which
checks the records of every mode.

Inputs are one tensor each. If all inputs are single numbers, they may also be one tensor of shape
[N, inputs], named ``input`` or like the model's own input. Entity keys may come as ``entity_keys``
in the parameters or as a tensor with the key's name; without them a record is identified by its
position. With keys, inputs that a feature database covers may be left out. Nullable inputs may
always be left out.

Parameters of a request: ``binary_data_output``, ``entity_keys``, ``partial`` (see
:attr:`InferenceRequest.partial`), ``allow_missing``. Others are ignored, as the protocol requires;
unknown fields are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import orjson

from fourways_api import Contract, EntityKey, InputField
from fourways_http import HttpError, Request
from fourways_runtime.scoring import times
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.tensors import MaybeRounded

from .body import MAX_BODY_BYTES, OFF_LOOP_BYTES, split_body
from .protocol import DATATYPES, KEY_ALIAS, MAX_OUTPUTS, read_envelope, refuse
from .reading import TensorReading
from .sliced_json import release

COMBINED = "input"
"""Name of a single tensor that holds all inputs as its columns."""

_MAX_ROWS_NAMED = 10
_EXAMPLE_INPUTS = 6
_EXAMPLES: dict[str, Any] = {"string": "TEXT", "bool": False, "bytes": "QUJD…"}

BadRow = tuple[int, str, str]
"""A record's position in its request, the invalid field, and the reason."""

Keyed: TypeAlias = Literal["optional", "required", "only"]
"""Whether records have entity keys. ``optional``: they may. ``required``: they must, each key once,
and the inputs may then be left out, but only all together. ``only``: a request may hold nothing but
keys."""


@dataclass(slots=True)
class InferenceRequest:
    """A parsed request: ``rows`` records, as one block (rows, inputs) or as columns.

    Treat it as immutable; it is not frozen, because creating a frozen one takes three times as
    long.
    """

    rows: int
    id: str | None
    outputs: tuple[tuple[str, bool], ...] | None
    """Requested outputs, each with whether it is to be binary; None: all, as ``binary`` says."""

    binary: bool
    keys: list[Any] | None
    block: Array | None
    columns: dict[str, Array]
    missing: tuple[str, ...] = ()
    """Inputs that were left out, to be looked up by ``keys``."""

    features: str | None = None
    """Where the inputs that were left out were taken from."""

    features_as_of: tuple[str | None, ...] | None = None
    """Since when the looked-up row of each record holds (RFC 3339), if the lookup has that."""

    partial: bool = False
    """Whether good rows get predictions even if others are bad. The response then describes the
    error of each bad row, instead of one bad row refusing the request."""

    allow_missing: bool = False
    """Whether keys without a prediction are accepted (deployments that answer from the store)."""

    bad: tuple[BadRow, ...] = ()
    """Rows found bad while a ``partial`` request was read; they are left out here."""

    given: tuple[int, ...] | None = None
    """Positions in the request of the rows kept here, if some were left out."""

    looked_up: tuple[str, ...] = ()
    """Inputs that the feature database filled in."""

    @property
    def asks_nothing_special(self) -> bool:
        """Whether the response is all outputs in JSON, and nothing else."""
        return (
            self.id is None
            and self.outputs is None
            and self.features is None
            and not self.binary
            and not self.partial
        )

    @property
    def is_all_binary(self) -> bool:
        """Whether the response is all outputs in binary, and nothing else."""
        return (
            self.binary
            and self.id is None
            and self.outputs is None
            and self.features is None
            and not self.partial
        )

    @property
    def is_plain(self) -> bool:
        """Whether the request holds nothing but its records, with all inputs."""
        return self.asks_nothing_special and self.keys is None and not self.missing

    @property
    def is_large(self) -> bool:
        """Whether its values are better processed on a thread."""
        return self.block_bytes > OFF_LOOP_BYTES

    @property
    def block_bytes(self) -> int:
        """Bytes of its values, without the contents of strings."""
        block = 0 if self.block is None else self.block.nbytes
        return block + sum(column.nbytes for column in self.columns.values())

    def refuse(self, bad: Sequence[BadRow]) -> HttpError:
        """Return the error that names the first bad rows."""
        text, more = self.described(bad)
        return HttpError(400, text, **more)

    def described(self, bad: Sequence[BadRow]) -> tuple[str, dict[str, Any]]:
        """Describe the first bad rows and count all: a message, and the response's fields."""
        row, field, reason = bad[0]
        rows = [self.describe(one) for one in bad[:_MAX_ROWS_NAMED]]
        first = {"field": field, "reason": reason, "row": row}
        return f"{field}: {reason} (row {row})", {**first, "rows": rows, "bad_rows": len(bad)}

    def position(self, row: int) -> int:
        """Return the position in the request of a row kept here."""
        return row if self.given is None else self.given[row]

    def without(self, bad: Sequence[BadRow]) -> InferenceRequest:
        """Return the request without some of the rows here, which its ``bad`` then lists too."""
        good = np.ones(self.rows, bool)
        good[[row for row, _, _ in bad]] = False
        kept = np.flatnonzero(good).tolist()
        more = [(self.position(row), name, reason) for row, name, reason in bad]
        times = self.features_as_of
        return replace(
            self,
            rows=len(kept),
            keys=None if self.keys is None else [self.keys[at] for at in kept],
            block=None if self.block is None else self.block[good],
            columns={name: values[good] for name, values in self.columns.items()},
            features_as_of=None if times is None else tuple(times[at] for at in kept),
            bad=tuple(sorted([*self.bad, *more])),
            given=tuple(self.position(row) for row in kept),
        )

    def describe(self, bad: BadRow) -> dict[str, Any]:
        """Describe a bad row for the client."""
        at, name, why = bad
        key = {}
        if self.keys is not None and self.given is None:
            key["key"] = self.keys[at]
        return {"row": at, **key, "field": name, "reason": why}


class RequestReader:
    """Reads requests according to one contract."""

    def __init__(
        self,
        contract: Contract,
        model_inputs: Sequence[str],
        max_rows: int,
        covered: Sequence[str] = (),
        *,
        keyed: Keyed = "optional",
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Derive what each request is checked against.

        Args:
            contract: Declares the inputs, outputs and the entity key.
            model_inputs: The model's own names for its inputs.
            max_rows: Maximum rows of a request.
            covered: Inputs that a request with entity keys may leave out.
            keyed: Whether requests have entity keys.
            max_body_bytes: Maximum size of a decompressed body.

        """
        inputs: Sequence[InputField] = contract.flat_inputs if keyed != "only" else ()
        self.keyed = keyed
        self.covered = frozenset(covered)
        self.key: EntityKey = contract.entity_key
        self.fields = {field.name: field for field in inputs}
        self.max_rows = max_rows
        self._max_body_bytes = max_body_bytes
        # A published run's outputs may have changed by the time the request is answered.
        self._outputs = None if keyed != "optional" else tuple(f.name for f in contract.outputs)
        numeric = bool(inputs) and all(not f.shape and f.is_number for f in inputs)
        combined = {COMBINED, *model_inputs} if len(model_inputs) <= 1 else {COMBINED}
        self.combined = frozenset(combined - self.fields.keys()) if numeric else frozenset()
        kinds = {field.type for field in inputs}
        self.block_type = np.dtype(kinds.pop()) if numeric and len(kinds) == 1 else None
        self.key_names = frozenset({self.key.name, KEY_ALIAS} - self.fields.keys())
        self.names = tuple(self.fields)
        self.width = len(self.fields)
        kind = str(self.block_type)
        self.floats = kind if kind in ("float32", "float64") else None
        """The type of all inputs, if one tensor of floats can hold them."""

        blocks = [field for field in contract.inputs if field.columns] if inputs else []
        self.blocks = {field.name: field for field in blocks}
        """The inputs that stand for several columns, which may be sent as one tensor."""

        self.form = _form(self.key, contract.inputs if inputs else (), keyed)
        """An example of a valid request, which the errors show."""

    def read(self, request: Request) -> InferenceRequest:
        """Read a request. Raises HttpError 400, 413 or 415, naming the field."""
        try:
            return self._read(request, exact=False)
        except MaybeRounded:
            return self._read(request, exact=True)

    def _read(self, request: Request, *, exact: bool) -> InferenceRequest:
        header, binary, raw = split_body(request, self._max_body_bytes, exact=exact)
        reading = TensorReading(self, binary, plain=_no_truths(raw), exact=exact)
        try:
            return self._asked_of(header, reading)
        finally:
            if len(raw) > OFF_LOOP_BYTES:
                release(header)

    def _asked_of(self, header: Any, reading: TensorReading) -> InferenceRequest:
        body, identity = read_envelope(header, self.form)
        reading.inputs(body["inputs"])
        parameters = _object(body.get("parameters"), "parameters")
        binary_output = _truth(parameters, "binary_data_output")
        if parameters.get("entity_keys") is not None:
            reading.take_keys("parameters.entity_keys", parameters["entity_keys"])
        reading.settle()
        keyed = self.keyed != "optional"
        inference = InferenceRequest(
            reading.rows,
            identity,
            self._asked(body.get("outputs"), binary_output),
            binary_output,
            reading.keys,
            reading.block,
            reading.columns,
            reading.missing,
            partial=not keyed and _truth(parameters, "partial"),
            allow_missing=keyed and _truth(parameters, "allow_missing"),
        )
        if reading.bad:
            bad = [(row, *reading.bad[row]) for row in sorted(reading.bad)]
            if not inference.partial or len(bad) == inference.rows:
                raise inference.refuse(bad)
            return inference.without(bad)
        return inference

    def _asked(self, outputs: Any, binary: bool) -> tuple[tuple[str, bool], ...] | None:
        """Return the requested outputs; None means all, as in the protocol."""
        if outputs is None or outputs == []:
            return None
        if not isinstance(outputs, list) or len(outputs) > MAX_OUTPUTS:
            raise refuse("outputs", f"must be a list of at most {MAX_OUTPUTS} outputs")
        asked: dict[str, bool] = {}
        for index, output in enumerate(outputs):
            at = f"outputs[{index}]"
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str):
                raise refuse(f"{at}.name", "must be a string")
            if self._outputs is not None and name not in self._outputs:
                known = ", ".join(self._outputs)[:256]
                raise refuse(f"{at}.name", f"is not an output; there are: {known}")
            if name in asked:
                raise refuse(f"{at}.name", "is requested twice")
            own = _object(output.get("parameters"), f"{at}.parameters")
            asked[name] = _truth(own, "binary_data", f"{at}.parameters", binary)
        return tuple(asked.items())


def _no_truths(body: bytes) -> bool:
    """Return whether a body contains neither true nor false; quick if it has no l and no r."""
    if b"l" not in body and b"r" not in body:
        return True
    return b"true" not in body and b"false" not in body


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refuse(where, "must be an object")
    return value


def _truth(
    parameters: dict[str, Any], name: str, where: str = "parameters", default: bool = False
) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise refuse(f"{where}.{name}", "must be true or false")
    return value


def _form(key: EntityKey, inputs: Sequence[InputField], keyed: Keyed) -> str:
    """Return an example request of one row, with the deployment's own names."""
    tensors: list[dict[str, Any]] = []
    if keyed != "optional":
        value: Any = 1 if key.type == "int64" else "KEY"
        tensors.append(
            {"name": key.name, "shape": [1], "datatype": DATATYPES[key.type], "data": [value]}
        )
    for field in inputs[:_EXAMPLE_INPUTS]:
        example: Any = _EXAMPLES.get(field.type, 0)
        example = times.example(field.type) if times.is_time(field.type) else example
        shape = [1, *(3 if size == -1 else size for size in field.value_shape)]
        tensors.append(
            {
                "name": field.name,
                "shape": shape,
                "datatype": DATATYPES[field.type],
                "data": [] if field.value_shape else [example],
            }
        )
    text = orjson.dumps({"inputs": tensors}).decode()
    return text if len(inputs) <= _EXAMPLE_INPUTS else text[:-2] + ",...]}"
