"""From a live ModelDeployment to its parsed spec, or to its problems. Pure.

Only the fields that plans are made from are read, so that a spec is checked once, however often its
object comes with another status: evaluating the rules of a spec takes tens of milliseconds.
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
    """Return a live deployment's spec when it is valid, and else its problems."""
    # A status that another version wrote is not a problem of the spec.
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
