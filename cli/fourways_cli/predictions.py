"""Predictions by entity key, requested as any backend does: from the gateway, by V2.

The mode decides where a prediction comes from: a batch run or a stream has stored it, or a model
server scores it now, with inputs from the command line or from its database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fourways_api.shapes import shape_of
from fourways_runtime.scoring import exact_json

from .targets import Target, TargetError, named

Json = dict[str, Any]

_DATATYPES = {"float16": "FP16", "float32": "FP32", "float64": "FP64"}
_DATATYPES |= dict.fromkeys(("string", "bytes", "date"), "BYTES")
_DATATYPES |= dict.fromkeys((f"timestamp_{unit}" for unit in ("s", "ms", "us", "ns")), "BYTES")
"""V2 datatypes that are not the contract's type in upper case."""


_WHOLE = re.compile(r"-?[0-9]{1,19}")

NOT_STORED = "the published run has none"


class InputNotAllowed(ValueError):
    """A key or an input that no deployment of this mode and contract can take."""


@dataclass(frozen=True, slots=True)
class PredictionsByKey:
    """The predictions found, in the order of the keys, and why other keys have none."""

    answers: list[Json]
    missing: dict[str, str] = field(default_factory=dict)
    breaks_contract: bool = False
    """The gateway refused every key because the inputs break the contract."""


def predictions(
    target: Target,
    namespace: str,
    name: str,
    keys: list[str],
    inputs: Mapping[str, str],
    wait_seconds: float,
) -> PredictionsByKey:
    """Return a prediction for each key that has one.

    ``inputs`` are values of the contract's inputs, as JSON or bare texts, the same for all keys; a
    stored prediction needs none. ``wait_seconds`` is how long to wait for a stream's prediction for
    a new event.

    Raises:
        TargetError: there is no such deployment, nothing is published, or the deployment runs on
            devices.
        InputNotAllowed: a key does not have the contract's type, the contract has no such input, or
            the deployment is batch, whose predictions are stored already.

    """
    document = named(target.deployments(namespace), namespace, name)
    mode = (document.get("status") or {}).get("mode") or ""
    query = _KeyQuery(target, namespace, name, document["spec"]["contract"], inputs, wait_seconds)
    return MODES.get(mode, _scored)(query, keys)


def _each(keys: list[str], query: Callable[[str], Json]) -> PredictionsByKey:
    answers: list[Json] = []
    missing: dict[str, str] = {}
    codes = set()
    for key in keys:
        try:
            answers.append(query(key))
        except TargetError as error:
            # A refusal concerns only this key; an unavailable server concerns all keys.
            if error.code is None or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            missing[key] = str(error)
            codes.add(error.code)
    return PredictionsByKey(answers, missing, not answers and codes == {HTTPStatus.BAD_REQUEST})


def _on_devices(query: _KeyQuery, keys: list[str]) -> PredictionsByKey:
    raise TargetError(
        f"{query.name} is an edge deployment: its devices serve predictions, from the "
        f"bundles at /bundles/{query.name}/ of the gateway"
    )


def _stored(query: _KeyQuery, keys: list[str]) -> PredictionsByKey:
    """Return stored predictions, all from one run."""
    target, namespace, name = query.target, query.namespace, query.name
    if query.inputs:
        raise InputNotAllowed(
            f"--input: {name} is a batch deployment, which returns stored predictions by key; "
            "remove --input"
        )
    path = _model(name)
    (tensor,) = target.gateway(namespace, path)["inputs"]
    typed = {key: _typed(key, tensor["name"], tensor["datatype"] == "INT64") for key in keys}
    left = list(keys)
    while left:
        body = {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": [len(left)],
            "data": [typed[key] for key in left],
        }
        try:
            answer = target.gateway(namespace, f"{path}/infer", {"inputs": [body]})
        except TargetError as error:
            # The gateway names only the first missing key; the next request is for the rest.
            missing = error.document.get("missing")
            known = [key for key in left if typed[key] not in (missing or ())]
            if len(known) == len(left):
                raise
            left = known
            continue
        rows = [_row(name, key, answer, index, len(left)) for index, key in enumerate(left)]
        return PredictionsByKey(rows, {key: NOT_STORED for key in keys if key not in left})
    return PredictionsByKey([], dict.fromkeys(keys, NOT_STORED))


class _KeyQuery:
    """Queries for one key at a time, with inputs."""

    def __init__(
        self,
        target: Target,
        namespace: str,
        name: str,
        contract: Json,
        inputs: Mapping[str, str],
        wait_seconds: float,
    ) -> None:
        self.target = target
        self.namespace = namespace
        self.name = name
        self.inputs = inputs
        self._contract = contract
        self._wait_seconds = wait_seconds

    def of_server(self, key: str) -> Json:
        """Let the model server score it."""
        return _row(self.name, key, self._infer(key, {}), 0, 1)

    def of_stream(self, key: str) -> Json:
        """Look up a prediction. With inputs, publish an event if there is none, and wait."""
        patience = {"Prefer": f"wait={self._wait_seconds:.0f}"}
        if self.inputs:
            answer = self._infer(key, patience)
            if "outputs" not in answer:
                raise TargetError(
                    "published as an event, without a prediction yet: try again later",
                    HTTPStatus.ACCEPTED,
                )
            return _row(self.name, key, answer, 0, 1)
        path = f"/predictions/{quote(self.name, safe='')}/{quote(key, safe='')}"
        return self.target.gateway(self.namespace, path, headers=patience)

    def _infer(self, key: str, headers: Mapping[str, str]) -> Json:
        body = {"inputs": self._tensors(key)}
        return self.target.gateway(self.namespace, f"{_model(self.name)}/infer", body, headers)

    def _tensors(self, key: str) -> list[Json]:
        entity = self._contract["entityKey"]
        whole = entity.get("type") == "int64"
        tensors = [
            {
                "name": entity["name"],
                "datatype": "INT64" if whole else "BYTES",
                "shape": [1],
                "data": [_typed(key, entity["name"], whole)],
            }
        ]
        fields = {field["name"]: field for field in self._contract["inputs"]}
        for name, text in self.inputs.items():
            if name not in fields:
                known = ", ".join(fields)
                raise InputNotAllowed(f"--input: {name} is not an input; there are: {known}")
            kind = fields[name]["type"]
            shape = fields[name].get("shape", [])
            datatype = _DATATYPES.get(kind, kind.upper())
            value = _value(text, is_text=datatype == "BYTES" and not shape)
            tensors.append(
                {
                    "name": name,
                    "datatype": datatype,
                    "shape": [1, *shape_of(shape, value)],
                    "data": _flat(value),
                }
            )
        return tensors


def _scored(query: _KeyQuery, keys: list[str]) -> PredictionsByKey:
    return _each(keys, query.of_server)


def _streamed(query: _KeyQuery, keys: list[str]) -> PredictionsByKey:
    return _each(keys, query.of_stream)


MODES: Mapping[str, Callable[[_KeyQuery, list[str]], PredictionsByKey]] = {
    "batch": _stored,
    "realtime": _scored,
    "streaming": _streamed,
    "edge": _on_devices,
}
"""How to query each mode for predictions; a mode without an entry is queried as real-time."""


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _typed(key: str, name: str, whole: bool) -> str | int:
    if not whole:
        return key
    if _WHOLE.fullmatch(key) is None:
        raise InputNotAllowed(f"{key!r} is not a whole number, which the key {name} is")
    return int(key)


def _value(text: str, *, is_text: bool) -> Any:
    """Return the value of an input given as JSON or as a bare text.

    12345 is a text where the contract says so, such as a postal code, and "12345" is the same one.
    """
    try:
        value = exact_json.loads(text)
    except ValueError:
        return text
    return text if is_text and not isinstance(value, str) else value


def _flat(value: Any) -> list[Any]:
    """Return a value's elements, row by row."""
    return [x for part in value for x in _flat(part)] if isinstance(value, list) else [value]


def _row(name: str, key: str, answer: Json, index: int, rows: int) -> Json:
    """Return one row of a V2 response."""
    parameters = answer.get("parameters", {})
    return {
        "deployment": name,
        "key": key,
        "outputs": {o["name"]: _cell(o, index, rows) for o in answer["outputs"]},
        "version": answer.get("model_version", ""),
        **{name: parameters[name] for name in ("computed_at", "run") if name in parameters},
    }


def _cell(output: Json, index: int, rows: int) -> Any:
    """Return one row of a V2 tensor, which is row-major."""
    width = len(output["data"]) // rows
    values = output["data"][index * width : (index + 1) * width]
    return values[0] if len(output["shape"]) == 1 else values
