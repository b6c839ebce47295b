"""From a live ModelDeployment to its parsed spec, or to what is wrong with it. Pure.

It reads only what plans are made from, so that the same spec is judged once however often its
object is seen with another status: the rules of a spec take tens of milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import orjson

from fourways_api import InvalidSpec, Metadata, ModelDeployment, Problem, check, parse

from .facts import Json


@dataclass(frozen=True, slots=True, eq=False)
class ParsedSpec:
    """A spec, or what is wrong with it. The same one for the same document, as long as it lasts."""

    spec: ModelDeployment | None
    problems: tuple[Problem, ...]


def parsed_spec(deployment: Json) -> ParsedSpec:
    """Return a live deployment's spec when it is valid, and else its problems."""
    # Status is ours to write: what an older or newer operator wrote there is no fault of the spec.
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
