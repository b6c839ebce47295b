"""YAML as test data, by the parser in C: many files are read before the first test runs.

Manifests that are under test are read by ``fourways_api``.
"""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """Return the only document of a text."""
    return yaml.load(text, yaml.CSafeLoader)


def load_every_yaml(text: str) -> list[Any]:
    """Return the documents of a text."""
    return list(yaml.load_all(text, yaml.CSafeLoader))
