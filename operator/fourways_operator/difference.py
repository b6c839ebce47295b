"""Decide whether an apply is needed: whether the cluster differs from the desired state. Pure.

It answers two questions. If the answer to both is yes, an apply would change nothing:

* Is every desired field there? Other fields, set by the server or by others, do not matter.
* Is every field that we once applied still desired? The server keeps that set in
  ``metadata.managedFields`` (FieldsV1 of structured-merge-diff: ``f:`` a field, ``k:`` an item of
  a list merged by key, ``v:`` an item of a set, ``.`` the thing itself, ``{}`` owned whole).

The same record says how the server merges each list, so this module needs no table of merge keys
and compares unknown kinds correctly. It uses no annotation with a hash: a hash says only that
something differs, not what, and is wrong after others have edited the object.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .facts import Json

_IDENTITY = {(): ("apiVersion", "kind"), ("metadata",): ("name", "namespace")}
"""The object's own name: nobody owns it, and the object was found by it."""

_FILLED_IN = {"apiVersion": "v1", "protocol": "TCP"}
"""Defaults that servers set inside values we own as a whole (fieldRef, ports of a policy). Any
other field found there that is not desired comes from an earlier apply of ours."""

_SUFFIX = {
    **{s: Decimal(1000) ** (n - 3) for n, s in enumerate(("n", "u", "m", "", "k", "M", "G", "T"))},
    **{s: Decimal(1024) ** n for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+)?([a-zA-Z]{0,2})")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where desired and live object differ; None stands for absent."""

    path: str
    wanted: Any
    found: Any

    def __str__(self) -> str:
        """Return the difference as one line."""
        return f"{self.path}: wanted {_shown(self.wanted)}, found {_shown(self.found)}"


def difference(
    desired: Json, live: Json, manager: str, subresource: str | None = None
) -> Difference | None:
    """Return the first change an apply of ``desired`` by ``manager`` would make, or None."""
    owned = _owned(live, manager, desired["apiVersion"], subresource)
    if owned is None:
        return Difference("metadata.managedFields", f"applied by {manager}", None)
    return _compare_objects(desired, live, owned, ())


def _owned(live: Json, manager: str, api_version: str, subresource: str | None) -> Json | None:
    for entry in live["metadata"].get("managedFields", []):
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and entry.get("apiVersion") == api_version
            and entry.get("subresource") == subresource
        ):
            fields: Json = entry.get("fieldsV1", {})
            return fields
    return None


def _compare(wanted: Any, found: Any, owned: Json, path: Path) -> Difference | None:
    if not owned or set(owned) == {"."}:
        return _compare_whole(wanted, found, path)
    if isinstance(wanted, dict) and isinstance(found, dict):
        return _compare_objects(wanted, found, owned, path)
    if isinstance(wanted, list) and isinstance(found, list):
        if any(key.startswith("k:") for key in owned):
            return _compare_keyed(wanted, found, owned, path)
        return _compare_sets(wanted, found, owned, path)
    return _differ(wanted, found, path)


def _compare_objects(wanted: Json, found: Json, owned: Json, path: Path) -> Difference | None:
    identity = _IDENTITY.get(path, ())
    for name, value in wanted.items():
        if name in identity or (name not in found and _is_nothing(value)):
            continue
        here = (*path, name)
        if name not in found:
            return _differ(value, None, here)
        fields = owned.get(f"f:{name}")
        if fields is None:
            if _is_nothing(value):
                continue
            # Equal by chance or taken over: unless we own it, nobody would remove it later.
            first = _compare_whole(value, found[name], here)
            return first or Difference(_joined(here), f"{_shown(value)} owned", "not owned")
        if (first := _compare(value, found[name], fields, here)) is not None:
            return first
    for key in owned:
        name = key.removeprefix("f:")
        if key != "." and _is_nothing(wanted.get(name)) and not _is_nothing(found.get(name)):
            return _differ(None, found[name], (*path, name))
    return None


def _compare_keyed(
    wanted: list[Any], found: list[Any], owned: Json, path: Path
) -> Difference | None:
    keys = {key: _decoded(key) for key in owned if key.startswith("k:")}
    unmatched = set(keys)
    for item in wanted:
        key = next((k for k in keys if _has_key(item, keys[k])), None)
        if key is None:
            return Difference(_joined(path), item, "not owned")
        here = (*path, f"[{key[2:]}]")
        unmatched.discard(key)
        there = next((f for f in found if _has_key(f, keys[key])), None)
        if there is None:
            return _differ(item, None, here)
        if (first := _compare(item, there, owned[key], here)) is not None:
            return first
    for key in sorted(unmatched):
        there = next((f for f in found if _has_key(f, keys[key])), None)
        if there is not None:
            return _differ(None, there, (*path, f"[{key[2:]}]"))
    return None


@lru_cache(maxsize=4096)
def _decoded(element: str) -> Any:
    """Return the JSON after ``k:`` or ``v:``; cached, since a few values are very frequent."""
    return json.loads(element[2:])


def _has_key(item: Any, key: Json) -> bool:
    """Tell whether an item has a key; a part that the item omits is a server default."""
    return isinstance(item, dict) and all(n not in item or item[n] == v for n, v in key.items())


def _compare_sets(
    wanted: list[Any], found: list[Any], owned: Json, path: Path
) -> Difference | None:
    ours = [_decoded(key) for key in owned if key.startswith("v:")]
    for item in wanted:
        if item not in found or item not in ours:
            return _differ(item, None, path)
    for item in ours:
        if item not in wanted and item in found:
            return _differ(None, item, path)
    return None


def _compare_whole(wanted: Any, found: Any, path: Path) -> Difference | None:
    """Compare a value owned as a whole: no field may be missing, and none may be extra."""
    if type(wanted) is str and wanted == found:
        return None
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted(wanted.keys() | found.keys()):
            here = (*path, name)
            if name not in wanted and _FILLED_IN.get(name) == found[name]:
                continue
            if name not in wanted or name not in found:
                if _is_nothing(wanted.get(name)) and _is_nothing(found.get(name)):
                    continue
                return _differ(wanted.get(name), found.get(name), here)
            if (first := _compare_whole(wanted[name], found[name], here)) is not None:
                return first
        return None
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        compared = (_compare_whole(w, f, (*path, f"[{i}]")) for i, (w, f) in pairs)
        return next((first for first in compared if first is not None), None)
    return None if _equal(wanted, found, path) else _differ(wanted, found, path)


def _equal(wanted: Any, found: Any, path: Path) -> bool:
    # In Python True == 1; in JSON true is not 1.
    if isinstance(wanted, bool) != isinstance(found, bool):
        return False
    return bool(wanted == found) or (_holds_quantity(path) and _same_amount(wanted, found))


def _holds_quantity(path: Path) -> bool:
    return path[-1] in ("sizeLimit", "divisor") or path[-2:-1] in (("requests",), ("limits",))


def _same_amount(wanted: Any, found: Any) -> bool:
    amount = _amount(str(wanted))
    return amount is not None and amount == _amount(str(found))


def _amount(text: str) -> Decimal | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[3] not in _SUFFIX:
        return None
    return Decimal(match[1] + (match[2] or "")) * _SUFFIX[match[3]]


def _is_nothing(value: Any) -> bool:
    """Tell whether the server omits a value when it stores the object."""
    return value is None or (value in ("", [], {}) and not isinstance(value, bool))


def _differ(wanted: Any, found: Any, path: Path) -> Difference:
    return Difference(_joined(path), wanted, found)


def _joined(path: Path) -> str:
    return ".".join(path).replace(".[", "[")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:197] + "..."
