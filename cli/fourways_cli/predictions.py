"""Stored predictions by entity key, asked for as any backend does: by the V2 protocol."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .targets import Target, TargetError

Json = dict[str, Any]


def stored_predictions(target: Target, namespace: str, name: str, keys: list[str]) -> list[Json]:
    """Return a prediction for each key, all from one run.

    Raises:
        TargetError: nothing is published, a key has no prediction, or is not of the key's type.

    """
    path = f"/v2/models/{quote(name, safe='')}"
    (tensor,) = target.gateway(namespace, path)["inputs"]
    question = {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": [len(keys)],
        "data": [_typed(key, tensor) for key in keys],
    }
    answer = target.gateway(namespace, f"{path}/infer", {"inputs": [question]})
    return [
        {
            "deployment": name,
            "key": key,
            "outputs": {o["name"]: _row(o, index, len(keys)) for o in answer["outputs"]},
            "version": answer["model_version"],
            "computed_at": answer["parameters"]["computed_at"],
            "run": answer["parameters"]["run"],
        }
        for index, key in enumerate(keys)
    ]


def _typed(key: str, tensor: Json) -> str | int:
    if tensor["datatype"] != "INT64":
        return key
    try:
        return int(key)
    except ValueError:
        raise TargetError(f"{key!r} is not a whole number, as {tensor['name']} is") from None


def _row(output: Json, index: int, rows: int) -> Any:
    """Return one row of a V2 tensor, whose data are row-major."""
    width = len(output["data"]) // rows
    values = output["data"][index * width : (index + 1) * width]
    return values[0] if len(output["shape"]) == 1 else values
