"""The interface of a feature database: its queries and its results."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from fourways_api import EntityKey, InputField
from fourways_runtime.errors import FeaturesMismatch
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row
from fourways_runtime.scoring.keys import group_keys

WHAT = "the feature database"
"""The name of the database in error messages."""


class FeatureDatabase(Protocol):
    """One database; a query takes many keys. Raises the errors of :class:`FeatureReader`."""

    concurrency: int
    """Maximum number of concurrent queries."""

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        """Return the rows of these keys."""

    async def check(self) -> None:
        """Connect and check the columns."""

    async def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The inputs to look up, and where to find them."""

    table: str | None
    query: str | None
    key: EntityKey
    inputs: tuple[str, ...]
    fields: Mapping[str, InputField]
    """The contract's fields of these inputs, if known."""

    timeout: float
    """Seconds."""

    @property
    def place(self) -> str:
        """The table or query, as messages name it."""
        return f"table {self.table}" if self.table is not None else "the query"

    def placed(self, columns: Sequence[str]) -> list[tuple[str, int]]:
        """Return the index of each input among the columns of a result.

        Raises:
            FeaturesMismatch: columns are missing; the message names them.

        """
        missing = [name for name in (self.key.name, *self.inputs) if name not in columns]
        if missing:
            found = ", ".join(columns)[:256] or "none"
            which = "column" if len(missing) == 1 else "columns"
            raise FeaturesMismatch(
                f"features: {self.place} has no {which} {', '.join(missing)[:512]}; found: {found}"
            )
        return [(name, columns.index(name)) for name in self.inputs]

    def meant(self, keys: Sequence[Key]) -> dict[Key, list[Key]]:
        """Group the given keys by their typed value; drop keys that do not fit the key's type."""
        return group_keys(self.key.type, keys)

    def rows(
        self,
        columns: Sequence[str],
        found: Iterable[Sequence[Any]],
        meant: Mapping[Key, list[Key]],
    ) -> dict[Key, Row]:
        """Return rows by the given keys; the last row of a key wins. Raises FeaturesMismatch."""
        places = self.placed(columns)
        key = columns.index(self.key.name)
        kind = int if self.key.type == "int64" else str
        rows: dict[Key, Row] = {}
        for values in found:
            if values[key] is not None:
                row = {name: plain(values[at]) for name, at in places}
                rows.update(dict.fromkeys(meant.get(kind(values[key]), ()), row))
        return rows


def plain(value: Any) -> Any:
    """Convert a database value to one that JSON can represent."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return str(value)
