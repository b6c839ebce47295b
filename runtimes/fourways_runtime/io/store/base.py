"""The prediction store, as its writers and readers see it.

One schema, two databases: PostgreSQL in a cluster, SQLite embedded. A run's predictions go to a
table of the run's own, with typed columns from the contract's outputs, and are published by moving
a pointer in one transaction: readers see the run before or the run after, whole. The store
describes itself (each run carries its contract), so a reader needs nothing but its address.
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
    """A run readers see. ``computed_at`` is when its predictions were made (UTC)."""

    name: str
    version: str
    digest: str
    contract: Contract
    computed_at: datetime
    rows: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """The answer to a question by keys: the run it comes from and a row for each key found."""

    run: PublishedRun
    rows: dict[Key, dict[str, Any]]
    """By key: outputs by name, as plain Python values (lists for arrays)."""
