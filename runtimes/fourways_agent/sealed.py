"""A small JSON document in two checksummed copies, so that one damaged file does not lose it.

Each copy carries a generation and a sha256 over its content and the document's name. A reader takes
the valid copy with the highest generation; a writer replaces the first copy, then the second. A
copy that is missing, empty, torn, edited or exchanged with another file is ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import files

_CHECKSUM, _GENERATION = "checksum", "generation"


class SealedDocument:
    """A JSON object in ``NAME.json`` and ``NAME.copy.json``."""

    def __init__(self, file: Path) -> None:
        self._copies = (file, file.with_name(f"{file.stem}.copy{file.suffix}"))
        self._kind = file.name

    def read(self) -> dict[str, Any] | None:
        """Return the document without its seal, or None if neither copy is valid."""
        newest = self._newest()
        if newest is None:
            return None
        return {name: it for name, it in newest.items() if name not in (_CHECKSUM, _GENERATION)}

    def write(self, document: Mapping[str, Any]) -> None:
        """Replace both copies, each atomically. Raises NoSpace."""
        newest = self._newest()
        generation = 1 if newest is None else int(newest.get(_GENERATION, 0)) + 1
        content = {**document, _GENERATION: generation}
        raw = json.dumps({**content, _CHECKSUM: self._checksum(content)}).encode()
        for copy in self._copies:
            files.write(copy, raw)

    def is_whole(self) -> bool:
        """Return whether both copies are valid and equal."""
        first, second = (self._valid(copy) for copy in self._copies)
        return first is not None and first == second

    def delete(self) -> None:
        """Delete both copies."""
        for copy in self._copies:
            files.delete(copy)

    def _newest(self) -> dict[str, Any] | None:
        valid = [found for copy in self._copies if (found := self._valid(copy)) is not None]
        if valid:
            return max(valid, key=lambda found: int(found[_GENERATION]))
        # Agents before the checksums wrote one plain file. It is not accepted once there are two.
        plain = _object(self._copies[0])
        unsealed = plain is not None and _CHECKSUM not in plain and not self._copies[1].exists()
        return plain if unsealed else None

    def _valid(self, copy: Path) -> dict[str, Any] | None:
        found = _object(copy)
        if found is None or type(found.get(_GENERATION)) is not int:
            return None
        content = {name: it for name, it in found.items() if name != _CHECKSUM}
        return found if found.get(_CHECKSUM) == self._checksum(content) else None

    def _checksum(self, content: Mapping[str, Any]) -> str:
        raw = json.dumps([self._kind, content], sort_keys=True).encode()
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _object(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
