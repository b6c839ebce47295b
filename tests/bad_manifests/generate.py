"""Random manifests: made from the CRD's schema, or good ones with a few fields changed.

They ask the same question of Python and of the API server, so what matters is not whether they
are valid but that they lie close to the border: bounds and one beyond, wrong types, odd texts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from fourways_api.crd import openapi_schema
from fourways_api.schema_hints import INT_OR_STRING

from .cases import change, good

SCHEMA = openapi_schema()["properties"]["spec"]

UNHEARD_OF: dict[str, Any] = {}

ODD_VALUES = st.sampled_from(
    [
        "",
        " ",
        "a",
        "A-1",
        "ü",
        "x\u00a0y",
        "0",
        "1\n",
        "1s",
        "0ms",
        "61s",
        "59s",
        "24h",
        "1h1ms",
        "file:///m",
        "pvc://c",
        "pvc://c/p",
        "s3://b/k\n",
        "s3://b/é",
        "true",
        "null",
        "@daily",
        "* * * * *",
        "0 0 * * 7",
        "@Daily",
        "sha256:" + "a" * 64,
        "a" * 64,
        "x" * 2100,
        "100%",
        "1Gi",
        0,
        1,
        -1,
        2,
        1.5,
        1e-9,
        1e300,
        2**63,
        2**31,
        True,
        False,
        None,
        [],
        {},
        [1],
        ["a"],
        {"a": 1},
        "auto",
        "batch",
        "realtime",
        "streaming",
        "edge",
        "Scheduled",
        "Continuous",
        "OnRequest",
    ]
)


def manifests() -> st.SearchStrategy[dict[str, Any]]:
    """Return random ModelDeployments."""
    return st.sampled_from([_mutated()] * 5 + [_generated()]).flatmap(lambda s: s)


_Values = Callable[[dict[str, Any]], st.SearchStrategy[Any]]
_known: dict[tuple[_Values, int], st.SearchStrategy[Any]] = {}


def _cached(kind: _Values, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Make the values of a field once: patterns take long to turn into texts."""
    key = kind, id(schema)
    if key not in _known:
        _known[key] = kind(schema)
    return _known[key]


def _odd(_: dict[str, Any]) -> st.SearchStrategy[Any]:
    return ODD_VALUES


@st.composite
def _mutated(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(draw(st.sampled_from(list(good().values()))))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = list(_places(document["spec"], SCHEMA, "spec"))
        path, schema, present = draw(st.sampled_from(places))
        if present and draw(st.integers(0, 5)) == 0:
            change(document, path, None, remove=True)
        else:
            kind = draw(st.sampled_from([_any, _any, _border, _odd]))
            # A copy: what was drawn may be drawn again, and changed in between.
            change(document, path, copy.deepcopy(draw(_cached(kind, schema))))
    return document


@st.composite
def _generated(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(draw(st.sampled_from(list(good().values()))))
    document["spec"] = draw(_cached(_any, SCHEMA))
    return document


def _places(
    value: Any, schema: dict[str, Any], path: str
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """List the fields that are there and those that could be: path, schema, present."""
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            yield f"{path}.{name}", field, name in value
            yield from _places(value.get(name), field, f"{path}.{name}")
        yield f"{path}.unheardOf", UNHEARD_OF, False
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", schema.get("items", UNHEARD_OF), True
            yield from _places(item, schema.get("items", UNHEARD_OF), f"{path}[{index}]")
        yield f"{path}[{len(value)}]", schema.get("items", UNHEARD_OF), False


def _border(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values at a field's limits and one beyond."""
    match _kind(schema):
        case "integer" | "number":
            low, high = schema.get("minimum", 0), schema.get("maximum", 10)
            return st.sampled_from([low, high, low - 1, high + 1, low + 0.5, float(high)])
        case "object" | "array":
            return _any(schema)
        case "string":
            long = st.just("a" * (schema.get("maxLength", 64) + 1))
            return st.one_of(_any(schema), _any(schema), long)
        case _:
            return _any(schema)


def _kind(schema: dict[str, Any]) -> Any:
    return "integer" if INT_OR_STRING in schema else schema.get("type")


def _any(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if INT_OR_STRING in schema:
        texts = {**schema, "type": "string"}
        del texts[INT_OR_STRING]
        return st.one_of(_any(texts), st.integers(-1, schema["maximum"] + 1))
    match schema.get("type"):
        case "object":
            return _object(schema)
        case "array":
            limits = schema.get("minItems", 0), min(3, schema.get("maxItems", 3))
            return st.lists(_any(schema["items"]), min_size=limits[0], max_size=limits[1])
        case "string" if "pattern" in schema:
            texts = st.from_regex(schema["pattern"], alphabet=st.characters(codec="ascii"))
            return texts.filter(lambda t: len(t) <= schema["maxLength"])
        case "string":
            return st.text(max_size=8)
        case "integer":
            return st.integers(schema.get("minimum", 0), min(schema.get("maximum", 9), 1000))
        case "number":
            return st.floats(0, 1, allow_subnormal=False)
        case "boolean":
            return st.booleans()
        case _:
            return ODD_VALUES


def _object(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "additionalProperties" in schema:
        names = st.sampled_from(["a", "example.com/zone", "disk"])
        return st.dictionaries(names, _any(schema["additionalProperties"]), max_size=3)
    required = set(schema.get("required", ()))
    fields = {n: _any(s) for n, s in schema["properties"].items()}
    return st.fixed_dictionaries(
        {n: f for n, f in fields.items() if n in required},
        optional={n: f for n, f in fields.items() if n not in required},
    )
