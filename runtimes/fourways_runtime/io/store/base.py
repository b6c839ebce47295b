"""The prediction store's types, shared by its writers and readers.

One schema, two databases: PostgreSQL in a cluster, SQLite embedded. Each run's predictions go to a
table of its own, with typed columns from the contract's outputs. They are published by moving a
pointer in one transaction: readers see either the previous run or the new one, complete. The store
describes itself (each run includes its contract), so a reader needs only its address.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fourways_api import Contract
from fourways_runtime.scoring.columns import Key


@dataclass(frozen=True, slots=True)
class Run:
    """A batch run, identified by namespace, deployment and the Job's name."""

    namespace: str
    deployment: str
    name: str
    version: str
    digest: str
    contract: Contract
    started_at: datetime


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A run that readers see. ``computed_at`` is when its predictions were made (UTC)."""

    name: str
    version: str
    digest: str
    contract: Contract
    computed_at: datetime
    rows: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of a lookup by keys: the run it comes from and a row for each key found."""

    run: PublishedRun
    rows: dict[Key, dict[str, Any]]
    """Outputs by key and name, as plain Python values (lists for arrays)."""
