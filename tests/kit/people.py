"""The inputs that tests of feature databases look up: one of each kind."""

from __future__ import annotations

from fourways_api import Contract

FIELDS = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "age", "type": "int32"},
            {"name": "spend", "type": "float32"},
            {"name": "seen", "type": "bool"},
            {"name": "word", "type": "string"},
            {"name": "grid", "type": "float32", "shape": [2]},
        ],
        "outputs": [{"name": "y", "type": "float32"}],
    }
).inputs
