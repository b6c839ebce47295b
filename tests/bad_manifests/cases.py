"""The manifests of this folder, as the unit tests and the cluster tests read them."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fourways_api import load_documents
from tests.kit.yaml_files import load_yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A wrong manifest: what is wrong with it, and who says so."""

    name: str
    document: dict[str, Any]
    stored: dict[str, Any] | None
    """The deployment it would replace, where only the step is wrong."""
    field: str
    says: str
    """Part of the fault or the fix."""
    by: Literal["rule", "schema", "operator"]
    """rule: the server prints our words. schema: it has its own, and names the field. operator:
    no schema can say it, so the server accepts and the condition SpecValid tells."""
    server_says: str
    """Part of the server's message."""


def good() -> dict[str, dict[str, Any]]:
    """Return the valid manifests by name."""
    return copy.deepcopy(_read_good())


@cache
def _read_good() -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in load_documents((HERE / "good.yaml").read_text())}


@cache
def bad() -> list[Case]:
    """Return the cases of bad.yaml."""
    bases = good()
    return [_case(bases, entry) for entry in load_yaml((HERE / "bad.yaml").read_text())]


def _case(bases: dict[str, dict[str, Any]], entry: dict[str, Any]) -> Case:
    base = bases[entry.get("from", "batch")]
    document = copy.deepcopy(base)
    for path, value in entry.get("set", {}).items():
        change(document, path, value)
    for path in entry.get("remove", ()):
        change(document, path, None, remove=True)
    return Case(
        entry["case"],
        document,
        base if entry.get("update") else None,
        entry["field"],
        entry["says"],
        entry["by"],
        entry.get("server", entry["says"] if entry["by"] == "rule" else entry["field"]),
    )


def change(document: dict[str, Any], path: str, value: Any, remove: bool = False) -> None:
    """Set or remove the field at a path such as ``spec.contract.inputs[0].name``."""
    keys = [key or int(index) for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]
    parent: Any = document
    for key in keys[:-1]:
        parent = parent[key] if isinstance(key, int) else parent.setdefault(key, {})
    if remove:
        del parent[keys[-1]]
    elif isinstance(parent, list) and keys[-1] == len(parent):
        parent.append(value)
    else:
        parent[keys[-1]] = value
