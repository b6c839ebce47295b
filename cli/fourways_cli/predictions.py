"""Predictions by entity key, asked for as any backend does: by the V2 protocol, at the gateway.

What a key alone can be asked for differs by mode: a batch run or a stream has stored it, a model
server scores it now, with inputs from the command line or from its database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .targets import Target, TargetError

Json = dict[str, Any]

_DATATYPES = {"string": "BYTES", "float32": "FP32", "float64": "FP64"}
"""Of the V2 protocol, where it does not say the contract's type in capitals."""


def predictions(
    target: Target,
    namespace: str,
    name: str,
    keys: list[str],
    inputs: Mapping[str, Any],
    wait_seconds: float,
) -> list[Json]:
    """Return a prediction for each key.

    ``inputs`` are values of the contract's inputs, the same for each key; a stored prediction
    needs none. ``wait_seconds`` is how long a stream's answer is waited for.

    Raises:
        TargetError: a key has no prediction, or is not of the key's type; nothing is published;
            devices answer.

    """
    document = _deployment(target, namespace, name)
    mode = (document.get("status") or {}).get("mode")
    if mode == "edge":
        raise TargetError(
            f"{name} is an edge deployment: its devices answer, from bundles that "
            f"/bundles/{name}/ of the gateway serves"
        )
    if mode == "batch":
        return _stored(target, namespace, name, keys)
    question = _Question(target, namespace, name, document["spec"]["contract"], inputs)
    if mode == "streaming":
        return [question.of_stream(key, wait_seconds) for key in keys]
    return [question.of_server(key) for key in keys]


def _deployment(target: Target, namespace: str, name: str) -> Json:
    found = (d for d in target.deployments(namespace) if d["metadata"]["name"] == name)
    document = next(found, None)
    if document is None:
        raise TargetError(f"no ModelDeployment {name} in namespace {namespace}")
    return document


def _stored(target: Target, namespace: str, name: str, keys: list[str]) -> list[Json]:
    """Return stored predictions, all from one run."""
    path = _model(name)
    (tensor,) = target.gateway(namespace, path)["inputs"]
    question = {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": [len(keys)],
        "data": [_typed(key, tensor["name"], tensor["datatype"] == "INT64") for key in keys],
    }
    answer = target.gateway(namespace, f"{path}/infer", {"inputs": [question]})
    return [_row(name, key, answer, index, len(keys)) for index, key in enumerate(keys)]


class _Question:
    """A question for one key at a time, with inputs."""

    def __init__(
        self, target: Target, namespace: str, name: str, contract: Json, inputs: Mapping[str, Any]
    ) -> None:
        self._target = target
        self._namespace = namespace
        self._name = name
        self._contract = contract
        self._inputs = inputs

    def of_server(self, key: str) -> Json:
        """Have a model server score it."""
        return _row(self._name, key, self._infer(key, {}), 0, 1)

    def of_stream(self, key: str, wait_seconds: float) -> Json:
        """Look it up. With inputs, what is not there becomes an event, and is waited for."""
        patience = {"Prefer": f"wait={wait_seconds:.0f}"}
        if self._inputs:
            answer = self._infer(key, patience)
            if "outputs" not in answer:
                raise TargetError(
                    f"{key} was taken up as an event and has no answer yet: ask again"
                )
            return _row(self._name, key, answer, 0, 1)
        path = f"/predictions/{quote(self._name, safe='')}/{quote(key, safe='')}"
        return self._target.gateway(self._namespace, path, headers=patience)

    def _infer(self, key: str, headers: Mapping[str, str]) -> Json:
        body = {"inputs": self._tensors(key)}
        return self._target.gateway(self._namespace, f"{_model(self._name)}/infer", body, headers)

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
        for name, value in self._inputs.items():
            if name not in fields:
                known = ", ".join(fields)
                raise TargetError(f"{name} is not an input; there are: {known}")
            kind = fields[name]["type"]
            shape = fields[name].get("shape", [])
            tensors.append(
                {
                    "name": name,
                    "datatype": _DATATYPES.get(kind, kind.upper()),
                    "shape": [1, *shape],
                    "data": _flat(value),
                }
            )
        return tensors


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _typed(key: str, name: str, whole: bool) -> str | int:
    if not whole:
        return key
    try:
        return int(key)
    except ValueError:
        raise TargetError(f"{key!r} is not a whole number, as {name} is") from None


def _flat(value: Any) -> list[Any]:
    """Return a value's elements, row by row."""
    return [x for part in value for x in _flat(part)] if isinstance(value, list) else [value]


def _row(name: str, key: str, answer: Json, index: int, rows: int) -> Json:
    """Return what a V2 answer says of one of its rows."""
    told = answer.get("parameters", {})
    return {
        "deployment": name,
        "key": key,
        "outputs": {o["name"]: _cell(o, index, rows) for o in answer["outputs"]},
        "version": answer.get("model_version", ""),
        **{name: told[name] for name in ("computed_at", "run") if name in told},
    }


def _cell(output: Json, index: int, rows: int) -> Any:
    """Return one row of a V2 tensor, whose data are row-major."""
    width = len(output["data"]) // rows
    values = output["data"][index * width : (index + 1) * width]
    return values[0] if len(output["shape"]) == 1 else values
