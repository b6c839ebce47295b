"""Parse the spec of a live ModelDeployment, or return its problems. Pure.

It reads only the fields that plans depend on. So a spec is checked once, however often its object
arrives with a new status: evaluating the rules of a spec takes tens of milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import orjson

from fourways_api import InvalidSpec, Metadata, ModelDeployment, Problem, check, parse

from .facts import Json


@dataclass(frozen=True, slots=True, eq=False)
class ParsedSpec:
    """A spec, or its problems. The same document gives the same instance while it is cached."""

    spec: ModelDeployment | None
    problems: tuple[Problem, ...]


def parsed_spec(deployment: Json) -> ParsedSpec:
    """Return a live deployment's spec if it is valid, otherwise its problems."""
    # A status from another version is not a problem of the spec.
    document = {k: v for k, v in deployment.items() if k != "status"}
    meta = deployment["metadata"]
    document["metadata"] = {k: meta[k] for k in Metadata.model_fields if k in meta}
    return _parsed(orjson.dumps(document))


@lru_cache(maxsize=1024)
def _parsed(document: bytes) -> ParsedSpec:
    try:
        spec = parse(orjson.loads(document))
        check(spec)
    except InvalidSpec as error:
        return ParsedSpec(None, error.problems)
    return ParsedSpec(spec, ())
