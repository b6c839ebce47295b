"""Server-side apply as the API server does it, well enough for the objects Fourways makes.

Field sets are kept as sets of paths whose elements are ``f:NAME``, ``k:KEY`` and ``v:VALUE``, so
that ``managedFields`` (FieldsV1) is only another way to write them down.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

Json = dict[str, Any]
Path = tuple[str, ...]
Fields = frozenset[Path]

MERGE_KEYS = {
    "ownerReferences": ("uid",),
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
}
PORT_KEYS = ("containerPort", "protocol"), ("port", "protocol")
WHOLE = frozenset(
    {
        "args",
        "drop",
        "rules",
        "egress",
        "ingress",
        "policyTypes",
        "fieldRef",
        "selector",
        "podSelector",
    }
)
"""Lists and maps the server replaces as a whole (x-kubernetes-*-type: atomic)."""

WHOLE_OF = {"InferenceService": WHOLE | {"containers", "volumes"}}
"""A CRD's lists are atomic unless it says otherwise, and KServe's says nothing of these."""


def fields_of(obj: Json) -> Fields:
    """Return the paths an applied object has an opinion on."""
    body = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}
    if "metadata" in body:
        meta = body["metadata"]
        kept = {k: v for k, v in meta.items() if k in ("labels", "ownerReferences", "annotations")}
        body["metadata"] = kept
    return frozenset(_leaves(body, (), "", _whole_of(obj)))


def _leaves(value: Any, path: Path, name: str, whole: frozenset[str]) -> list[Path]:
    if name in whole:
        return [path]
    if isinstance(value, dict) and value:
        return [p for k, v in value.items() for p in _leaves(v, (*path, f"f:{k}"), k, whole)]
    if isinstance(value, list) and value and (keys := _merge_keys(name, value)):
        return [
            p
            for item in value
            for p in [
                (*path, f"k:{_key(item, keys)}"),
                *_leaves(item, (*path, f"k:{_key(item, keys)}"), "", whole),
            ]
        ]
    return [path] if path else []


def _whole_of(obj: Json) -> frozenset[str]:
    return WHOLE_OF.get(obj.get("kind", ""), WHOLE)


def _merge_keys(name: str, value: list[Any]) -> tuple[str, ...] | None:
    if name == "ports" and isinstance(value[0], dict):
        return next((keys for keys in PORT_KEYS if keys[0] in value[0]), None)
    return MERGE_KEYS.get(name)


def _key(item: Json, keys: tuple[str, ...]) -> str:
    return json.dumps({k: item[k] for k in keys if k in item}, separators=(",", ":"))


def to_fields_v1(fields: Fields) -> Json:
    """Write a field set as FieldsV1."""
    root: Json = {}
    inner = parents_of(fields)
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path in inner:
            node["."] = {}
    return root


def value_at(obj: Any, path: Path) -> Any:
    """Return what is at a path, None where there is nothing."""
    for element in path:
        obj = _child(obj, element)
        if obj is None:
            return None
    return obj


def _child(obj: Any, element: str) -> Any:
    if element.startswith("f:"):
        return obj.get(element[2:]) if isinstance(obj, dict) else None
    key = json.loads(element[2:])
    items = obj if isinstance(obj, list) else []
    return next((i for i in items if all(i.get(k) == v for k, v in key.items())), None)


def copy(obj: Json) -> Json:
    """Return a copy, as it would come over the wire."""
    copied: Json = orjson.loads(orjson.dumps(obj))
    return copied


def merge(live: Json, applied: Json) -> Json:
    """Return ``live`` with what was applied."""
    return dict(_merged(copy(live), copy(applied), "", _whole_of(applied)))


def _merged(live: Any, applied: Any, name: str, whole: frozenset[str]) -> Any:
    if name in whole:
        return applied
    if isinstance(applied, dict) and isinstance(live, dict):
        return {**live, **{k: _merged(live.get(k), v, k, whole) for k, v in applied.items()}}
    if isinstance(applied, list) and applied and isinstance(live, list):
        keys = _merge_keys(name, applied)
        if keys:
            wanted = {_key(i, keys): i for i in applied}
            there = {_key(i, keys): i for i in live}
            return [
                *(_merged(i, wanted[k], "", whole) if k in wanted else i for k, i in there.items()),
                *(i for k, i in wanted.items() if k not in there),
            ]
    return applied


def parents_of(fields: Fields) -> Fields:
    """Return every path that leads to one of these."""
    return frozenset(path[:n] for path in fields for n in range(len(path)))


def remove(obj: Json, path: Path) -> None:
    """Take away what is at a path, and what would be left empty by that."""
    parent = value_at(obj, path[:-1])
    child = _child(parent, path[-1]) if parent is not None else None
    if child is None:
        return
    if path[-1].startswith("f:"):
        del parent[path[-1][2:]]
    else:
        parent.remove(child)
    if not parent and len(path) > 1:
        remove(obj, path[:-1])
