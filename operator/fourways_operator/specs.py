"""Parse the spec of a live ModelDeployment, or return its problems. Pure.

It reads only the fields that plans depend on. So a spec is checked once, however often its object
arrives with a new status: evaluating the rules of a spec takes tens of milliseconds. What is kept
is bounded by bytes: a spec may have a megabyte, and takes ten times that once it is parsed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

import orjson

from fourways_api import InvalidSpec, Metadata, ModelDeployment, Problem, check, parse

from .facts import Json

T = TypeVar("T")

_MAX_MADE = 8
"""Maximum number of things that are kept with a spec, such as its plan."""

MAX_BYTES = 8 * 2**20
"""Maximum total size of the documents whose parsed specs are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class ParsedSpec:
    """A spec, or its problems. The same document gives the same instance while it is cached."""

    spec: ModelDeployment | None
    problems: tuple[Problem, ...]
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for this key before, as long as the spec is kept."""
        if key not in self._made:
            if len(self._made) >= _MAX_MADE:
                self._made.clear()
            self._made[key] = make()
        made: T = self._made[key]
        return made


def parsed_spec(deployment: Json) -> ParsedSpec:
    """Return a live deployment's spec if it is valid, otherwise its problems."""
    # A status from another version is not a problem of the spec.
    document = {k: v for k, v in deployment.items() if k != "status"}
    meta = deployment["metadata"]
    document["metadata"] = {k: meta[k] for k in Metadata.model_fields if k in meta}
    return _KNOWN.parsed(orjson.dumps(document))


class SpecCache:
    """Parsed specs by the digests of their documents, the least recently used given up first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, tuple[ParsedSpec, int]] = OrderedDict()
        self.bytes = 0
        """Total size of the documents."""

    def parsed(self, document: bytes) -> ParsedSpec:
        """Return a document's spec or problems; the same instance while it is kept."""
        digest = sha256(document).digest()
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest][0]
        found = _parsed(document)
        self._kept[digest] = found, len(document)
        self.bytes += len(document)
        # The newest is kept whatever its size: its object is about to be planned.
        while self.bytes > self._max_bytes and len(self._kept) > 1:
            _, (_, size) = self._kept.popitem(last=False)
            self.bytes -= size
        return found


_KNOWN = SpecCache()


def _parsed(document: bytes) -> ParsedSpec:
    try:
        spec = parse(orjson.loads(document))
        check(spec)
    except InvalidSpec as error:
        return ParsedSpec(None, error.problems)
    return ParsedSpec(spec, ())
