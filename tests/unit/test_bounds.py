"""What an author can make the operator keep, and what status can hold, is bounded."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from fourways_api.crd import openapi_schema
from fourways_operator.specs import SpecCache
from tests.transitions.changes import deployment


def document(number: int, size: int = 0) -> bytes:
    """A manifest with a description of this size, as a patch may set it."""
    made = deployment("churn")
    made["metadata"]["uid"] = str(number)
    made["spec"]["contract"]["inputs"][0]["description"] = "x" * size
    return orjson.dumps(made)


@pytest.mark.thorough
def test_specs_are_kept_by_bytes() -> None:
    cache = SpecCache(max_bytes=2 * 2**20)
    tracemalloc.start()
    try:
        for number in range(60):
            cache.parsed(document(number, 1_100_000))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.bytes <= 2 * 2**20
    assert kept < 40 * 2**20, "60 patches of 1.1 MB each"


class Plan:
    """Something that is made from a spec."""


@pytest.mark.thorough
def test_what_is_made_from_a_spec_goes_with_it() -> None:
    cache = SpecCache(max_bytes=1)
    found = cache.parsed(document(0))
    made = weakref.ref(found.once("plan", Plan))
    assert found.once("plan", Plan) is made()
    for number in range(100):
        found.once(number, Plan)
    assert made() is None, "settings and digests that come and go"
    made = weakref.ref(found.once("plan", Plan))
    del found
    cache.parsed(document(1))
    gc.collect()
    assert made() is None


def test_a_spec_is_parsed_once_while_it_is_kept() -> None:
    cache = SpecCache(max_bytes=5_000)
    first = cache.parsed(document(0))
    assert first.spec is not None
    assert cache.parsed(document(0)) is first
    others = [cache.parsed(document(number)) for number in range(1, 40)]
    assert cache.parsed(document(39)) is others[-1]
    assert cache.parsed(document(0)) is not first
    assert cache.bytes <= 5_000
    assert cache.parsed(document(40, 100_000)) is cache.parsed(document(40, 100_000))


def unbounded(schema: Any, path: str) -> Iterator[str]:
    """Yield the lists, maps and texts of a schema that have no bound."""
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "array" and "maxItems" not in schema:
        yield path
    if kind == "string" and not {"maxLength", "enum", "format"} & schema.keys():
        yield path
    if "additionalProperties" in schema and "maxProperties" not in schema:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from unbounded(part, f"{path}.{name}")
    yield from unbounded(schema.get("items"), f"{path}[]")


def test_every_list_and_text_of_status_is_bounded() -> None:
    assert list(unbounded(openapi_schema()["properties"]["status"], "status")) == []
