"""What the client returns, and how it is read from responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
Key: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one entity. ``prediction["score"]`` is ``prediction.outputs["score"]``."""

    deployment: str
    outputs: Mapping[str, Any]
    key: Key | None = None
    version: str = ""
    """Version of the model."""

    computed_at: datetime | None = None
    """When it was computed; None: for this request."""

    age_seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the response says, such as ``run`` and ``digest``."""

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    @property
    def value(self) -> Any:
        """The only output. Raises ValueError if there are several."""
        if len(self.outputs) != 1:
            raise ValueError(f"there are several outputs: {', '.join(self.outputs)}")
        return next(iter(self.outputs.values()))


@dataclass(frozen=True, slots=True)
class Event:
    """An event that a stream has accepted; its prediction follows."""

    deployment: str
    key: Key
    id: str
    location: str
    """Path of the prediction."""


_OWN = frozenset({"deployment", "key", "version", "computed_at", "age_seconds", "outputs"})


def of_lookup(answer: Json) -> Prediction:
    """Read the response to a look-up of one key."""
    return Prediction(
        answer["deployment"],
        answer["outputs"],
        answer.get("key"),
        answer.get("version") or "",
        _time(answer.get("computed_at")),
        float(answer.get("age_seconds") or 0.0),
        {name: value for name, value in answer.items() if name not in _OWN},
    )


def of_inference(answer: Json, keys: list[Key] | None) -> list[Prediction | None]:
    """Read an inference response: one prediction for each row; None where a key has none."""
    columns = {one["name"]: rows_of(one) for one in answer["outputs"]}
    found = columns.pop("found", None)
    parameters: Json = answer.get("parameters") or {}
    computed = _time(parameters.get("computed_at"))
    age = float(parameters.get("age_seconds") or 0.0)
    details = {name: value for name, value in parameters.items() if name not in _OWN}
    rows = iter(zip(*columns.values(), strict=True))
    there = found if found is not None else [True] * len(next(iter(columns.values()), ()))
    return [
        Prediction(
            answer["model_name"],
            dict(zip(columns, next(rows), strict=True)),
            keys[at] if keys is not None else None,
            answer.get("model_version") or "",
            computed,
            age,
            details,
        )
        if present
        else None
        for at, present in enumerate(there)
    ]


def rows_of(output: Json) -> list[Any]:
    """Return the rows of an output, nested according to its shape."""
    values: list[Any] = output["data"]
    if values and isinstance(values[0], list):
        return values
    for size in reversed(output["shape"][1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
