"""Records of a small contract, quiet or with a seeded drift, and the training profile of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fourways_api import Contract
from fourways_api.training_profile import read_profile
from fourways_runtime.scoring.profile import RecordProfiler, make_profile

Table = dict[str, Any]

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id", "type": "int64"},
        "inputs": [
            {"name": "alcohol", "type": "float32"},
            {"name": "price", "type": "float64", "nullable": True},
            {"name": "rooms", "type": "int64"},
            {"name": "colour", "type": "string", "nullable": True},
            {"name": "constant", "type": "float32"},
            {"name": "picture", "type": "float32", "shape": [2, 2]},
        ],
        "outputs": [{"name": "risk", "type": "float32"}],
    }
)
COLOURS = ["red", "white", "rose", "orange"]


def table(random: np.random.Generator, rows: int) -> Table:
    price = random.lognormal(3, 1, rows)
    price[random.random(rows) < 0.05] = np.nan
    colour = random.choice(COLOURS, rows, p=[0.6, 0.3, 0.08, 0.02]).astype(object)
    colour[random.random(rows) < 0.03] = ""
    return {
        "alcohol": random.normal(10.5, 1, rows).round(1).astype(np.float32),
        "price": price,
        "rooms": random.poisson(3, rows),
        "colour": colour,
        "constant": np.full(rows, 7, np.float32),
        "picture": np.zeros((rows, 2, 2), np.float32),
        "risk": random.beta(2, 5, rows).astype(np.float32),
    }


def outputs_of(columns: Table) -> Table:
    return {"risk": columns["risk"]}


def training_profile(seed: int = 0, rows: int = 5_000) -> bytes:
    """Return the file of a profile."""
    columns = table(np.random.default_rng(seed), rows)
    inputs = {name: values for name, values in columns.items() if name != "risk"}
    made = make_profile(CONTRACT, inputs, outputs_of(columns))
    return made.model_dump_json(exclude_none=True).encode()


def profiler(seed: int = 0, rows: int = 5_000) -> RecordProfiler:
    return RecordProfiler(read_profile(training_profile(seed, rows), CONTRACT))


def missing(name: str, share: float) -> Callable[[Table, np.random.Generator], None]:
    def change(columns: Table, random: np.random.Generator) -> None:
        nothing: Any = "" if columns[name].dtype == object else np.nan
        columns[name][random.random(len(columns[name])) < share] = nothing

    return change


def mapped(name: str, change: Callable[[Any], Any]) -> Callable[[Table, np.random.Generator], None]:
    def apply(columns: Table, random: np.random.Generator) -> None:
        columns[name] = change(columns[name])

    return apply


DRIFTS = {
    "a shift by one deviation": ("alcohol", mapped("alcohol", lambda v: v + 1)),
    "twice the spread": ("alcohol", mapped("alcohol", lambda v: 10.5 + 2 * (v - 10.5))),
    "another unit": ("price", mapped("price", lambda v: v * 100)),
    "a third is missing": ("price", missing("price", 0.33)),
    "a sensor that stands still": ("price", mapped("price", lambda v: np.full(len(v), 20.0))),
    "a counter that counts double": ("rooms", mapped("rooms", lambda v: v * 2)),
    "a label nobody knew": (
        "colour",
        mapped("colour", lambda v: np.where(v == "white", "weiss", v)),
    ),
    "a rare label that becomes frequent": (
        "colour",
        mapped("colour", lambda v: np.where(v == "red", "orange", v)),
    ),
    "a constant that changes": ("constant", mapped("constant", lambda v: v + 1)),
    "predictions that grow": ("risk", mapped("risk", lambda v: np.sqrt(v))),
}
